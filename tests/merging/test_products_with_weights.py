"""Methods whose products run over a whole side of a weight, merged in compiled code without torch.

PEFT adds such sums in MKL's order, so these merges are not bit-equal to PEFT's. Both are compared with a
reference in float64, which rounds numbers to the weight's dtype where PEFT does. Ours must be at least as
close to it as PEFT's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.kernels import choose_kernels
from adaptry.compute.merging.merge import plan_recipe
from adaptry.compute.merging.streaming.virtual_checkpoint import VirtualCheckpoint
from adaptry.core.digest import Digest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file  # noqa: E402  (needs torch)
from tests.merging.one_layer import (  # noqa: E402  (needs torch)
    OneLayer,
    kernels_of,
    merged,
    model_of,
    recipe_of,
    save_adapter,
    save_base,
    sources_of,
    weights_of,
)

OUT, IN = 400, 1056  # several blocks of rows, whose boundaries split groups of RoAd

FLOAT32_UNITS = 32
"""The error of PEFT's sums in units of float32: about the square root of the number of terms."""

PREFIX = "base_model.model.linear."

Stored = dict[str, Any]
Reference = Callable[[Any, Stored, Any], Any]
"""`reference(weight, stored, dtype)`: the merged weight in float64, before its last rounding."""


def rounded(numbers: Any, dtype: Any) -> Any:
    """Rounds to a half-precision dtype as PEFT does. Float32 is not rounded: it is only PEFT's precision."""
    return numbers if dtype == torch.float32 else numbers.to(dtype).double()


def _reflected(weight: Any, stored: Stored, dtype: Any) -> Any:
    for vector in (stored["hra_u"] / stored["hra_u"].norm(dim=0)).T:
        weight = weight - 2 * torch.outer(weight @ vector, vector)
    return weight


def _replaced(scale: float, is_orthogonal: bool = False) -> Reference:
    def reference(weight: Any, stored: Stored, dtype: Any) -> Any:
        out = torch.linalg.qr(stored["deft_P"]).Q if is_orthogonal else stored["deft_P"]
        right = out if is_orthogonal else out.relu()
        added = stored["deft_R"] * scale if "deft_R" in stored else 0
        return weight + rounded(out @ (added - right.T @ weight), dtype)

    return reference


def _by_network(act: Callable[[Any], Any], depth: int, scale: float) -> Reference:
    def reference(weight: Any, stored: Stored, dtype: Any) -> Any:
        hidden = act(weight.T @ stored["peanut_A.weight"].T)
        passed = []
        for layer in range(depth):
            passed.append(hidden)
            hidden = act(hidden @ stored[f"peanut_encoders.{layer}.weight"].T)
        for layer in range(depth):
            hidden = act(hidden @ stored[f"peanut_decoders.{layer}.weight"].T) + passed.pop()
        return weight + rounded((scale * hidden @ stored["peanut_B.weight"].T).T, dtype)

    return reference


def _turned(variant: str, group: int) -> Reference:
    """The rotation of the outputs by PEFT's unmerged adapter."""
    from peft.tuners.road.layer import _apply_road

    def reference(weight: Any, stored: Stored, dtype: Any) -> Any:
        rotation = _apply_road(
            variant, group, stored["road_theta"], stored["road_alpha"], torch.eye(len(weight)).double()
        ).T
        return rounded(rotation, dtype) @ weight

    return reference


def _config(kind: str, **fields: Any) -> Callable[[], Any]:
    return lambda: getattr(peft, kind)(target_modules=["linear"], **fields)


CASES: dict[str, tuple[Callable[[], Any], Reference]] = {
    "hra": (_config("HRAConfig", r=7), _reflected),
    "hra of many": (_config("HRAConfig", r=32), _reflected),
    "deft": (_config("DeftConfig", r=7), _replaced(1.0)),
    "deft taking out": (_config("DeftConfig", r=8, para=True), _replaced(1.0)),
    "peanut": (_config("PeanutConfig", r=7), _by_network(torch.relu, 0, 1.0)),
    **{
        f"peanut with {act}": (
            _config("PeanutConfig", r=8, depth=2, act_fn=act, scaling=0.7), _by_network(function, 2, 0.7))
        for act, function in {
            "relu6": torch.nn.functional.relu6,
            "leaky_relu": torch.nn.functional.leaky_relu,
            "gelu": torch.nn.functional.gelu,
            "swish": torch.nn.functional.silu,
            "mish": torch.nn.functional.mish,
            "tanh": torch.tanh,
            "sigmoid": torch.sigmoid,
        }.items()
    },
    **{
        f"{variant} in groups of {group}": (
            _config("RoadConfig", variant=variant, group_size=group), _turned(variant, group))
        for variant, group in (("road_1", 8), ("road_2", 200), ("road_4", OUT))
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=["bfloat16", "float16", "float32"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = OneLayer(OUT, IN)
    with torch.no_grad():
        model.linear.weight.normal_()
    return save_base(model.to(getattr(torch, request.param)), tmp_path_factory.mktemp("base"))


def unit(numbers: Any, dtype: Any) -> Any:
    """The distance between neighbouring numbers of the dtype at these magnitudes."""
    _, exponent = torch.frexp(numbers.abs().clamp(min=torch.finfo(dtype).smallest_normal))
    return torch.ldexp(torch.full_like(numbers, torch.finfo(dtype).eps), exponent - 1)


@pytest.mark.parametrize("case", CASES)
def test_a_merge_is_at_least_as_exact_as_pefts(base: Path, case: str, tmp_path: Path) -> None:
    config, reference = CASES[case]
    adapter = save_adapter(model_of(base), config(), tmp_path / "adapter")
    weight = weights_of(base)["linear.weight"]
    stored = load_file(adapter / "adapter_model.safetensors")
    numbers = {name.removeprefix(PREFIX): tensor.double() for name, tensor in stored.items()}
    exact = reference(weight.double(), numbers, weight.dtype)
    live = peft.PeftModel.from_pretrained(model_of(base), adapter)
    theirs = live.merge_and_unload().linear.weight.detach()

    assert kernels_of(base, adapter) == ("llvm",)
    ours = merged(base, [adapter], tmp_path / "merged")["linear.weight"]

    difference = (ours.double() - theirs.double()).abs()
    if weight.dtype == torch.float32:
        our_error, their_error = ((each.double() - exact).abs() for each in (ours, theirs))
        assert our_error.mean() <= their_error.mean()
        assert our_error.max() <= their_error.max()
    else:
        best = exact.to(weight.dtype)
        assert (ours != best).sum() <= (theirs != best).sum()
        allowed = unit(torch.maximum(ours.abs(), theirs.abs()).double(), weight.dtype)
        if case.startswith(("deft", "peanut")):  # PEFT rounds the update too, before it adds it
            allowed += unit(exact - weight.double(), weight.dtype)
        # If large numbers cancel each other, the error of their sum remains.
        allowed += FLOAT32_UNITS * unit(weight.double().abs().max(), torch.float32)
        assert (difference <= allowed).all()
        # Results differ if the two float32 sums round to different numbers of half precision.
        share = FLOAT32_UNITS * torch.finfo(torch.float32).eps / torch.finfo(weight.dtype).eps
        assert (difference > 0).double().mean() <= share
    assert not torch.equal(ours, weight)


@pytest.mark.parametrize("case", ["hra", "deft", "peanut", f"road_4 in groups of {OUT}"])
def test_parts_of_a_virtual_file_equal_those_of_the_merged_one(base: Path, case: str, tmp_path: Path) -> None:
    adapter = save_adapter(model_of(base), CASES[case][0](), tmp_path / "adapter")
    merged(base, [adapter], tmp_path / "merged")
    written = (tmp_path / "merged" / "model.safetensors").read_bytes()
    plan = plan_recipe(recipe_of([adapter]), open_checkpoint(base), sources_of([adapter]))

    virtual = VirtualCheckpoint(plan, choose_kernels(), Digest.of(b"tone"), {}, tmp_path)

    middle = len(written) // 2
    for start, end in ((0, len(written)), (middle, middle + 5000), (len(written) - 7, len(written))):
        parts = virtual.read("model.safetensors", start, end)
        assert b"".join(bytes(part) for part in parts) == written[start:end]
