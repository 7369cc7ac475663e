"""Methods whose bits in PEFT depend on torch's libraries (transforms, LAPACK, sums over a whole side), merged
without torch.

They are compared with PEFT's merge, and with PEFT's update in float64. Let u be half a unit in the last place
of the result's dtype. We round once, so our result is within u of the exact number. So it differs from PEFT's
by at most u plus PEFT's own error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from peft.tuners.c3a.utils import get_circulant_fast  # noqa: E402  (needs PEFT)
from tests.merging.one_layer import (  # noqa: E402  (needs torch)
    OneLayer,
    kernels_of,
    merged,
    model_of,
    save_adapter,
    save_base,
    weights_of,
)

pytestmark = pytest.mark.heavy

OUT, IN = 480, 1056
LARGE = (1280, 1536)


@dataclass(frozen=True)
class Case:
    """A config, and a function that computes PEFT's merged weight in float64 from its layer and W."""

    config: Callable[[], Any]
    exact: Callable[[Any, Any], Any]
    shape: tuple[int, int] = (OUT, IN)


def _circulant(layer: Any, weight: Any) -> Any:
    return weight + get_circulant_fast(layer.c3a_kernel["default"]) / weight.shape[1]


def _fourier(layer: Any, weight: Any) -> Any:
    spectrum = torch.zeros_like(weight)
    spectrum[tuple(layer.indices["default"])] = layer.fourierft_spectrum["default"]
    return weight + torch.fft.ifft2(spectrum).real * layer.fourierft_scaling["default"]


def _butterfly(layer: Any, weight: Any) -> Any:
    rotation, scales = layer.get_delta_weight("default")
    return (rotation @ weight.T).T * scales


def _rotated(layer: Any, weight: Any) -> Any:
    return (layer.get_delta_weight("default") @ weight.T).T


def _added(layer: Any, weight: Any) -> Any:
    return weight + layer.get_delta_weight("default")


TARGETS = ["linear"]
CASES = {
    "randlora of more outputs": Case(
        lambda: peft.RandLoraConfig(r=8, target_modules=TARGETS), _added, (IN, OUT)
    ),
    "randlora": Case(lambda: peft.RandLoraConfig(r=8, target_modules=TARGETS), _added),
    "randlora of more than 1,024 terms": Case(
        lambda: peft.RandLoraConfig(r=32, target_modules=TARGETS), _added, LARGE
    ),
    "randlora of rank one": Case(lambda: peft.RandLoraConfig(r=1, target_modules=TARGETS), _added, LARGE),
    "randlora of few bases": Case(
        lambda: peft.RandLoraConfig(r=640, target_modules=TARGETS), _added, LARGE[::-1]
    ),
    "c3a": Case(lambda: peft.C3AConfig(block_size=96, target_modules=TARGETS), _circulant),
    "c3a of small blocks": Case(lambda: peft.C3AConfig(block_size=6, target_modules=TARGETS), _circulant),
    "fourierft": Case(lambda: peft.FourierFTConfig(target_modules=TARGETS), _fourier),
    "fourierft of many coefficients": Case(
        lambda: peft.FourierFTConfig(
            n_frequency=20_000, scaling=9.0, random_loc_seed=5, target_modules=TARGETS
        ),
        _fourier,
    ),
    "boft": Case(lambda: peft.BOFTConfig(boft_block_size=32, target_modules=TARGETS), _butterfly),
    "boft of small blocks": Case(
        lambda: peft.BOFTConfig(boft_block_size=4, target_modules=TARGETS), _butterfly
    ),
    "oft solved": Case(
        lambda: peft.OFTConfig(oft_block_size=44, use_cayley_neumann=False, target_modules=TARGETS), _rotated
    ),
    "oft of shared solved blocks": Case(
        lambda: peft.OFTConfig(
            oft_block_size=32, block_share=True, use_cayley_neumann=False, target_modules=TARGETS
        ),
        _rotated,
    ),
    "oft near the identity": Case(
        lambda: peft.OFTConfig(
            oft_block_size=32, coft=True, eps=0.5, use_cayley_neumann=False, target_modules=TARGETS
        ),
        _rotated,
    ),
}


@pytest.fixture(scope="module", params=["bfloat16", "float16", "float32"])
def bases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    """The bases, by the shape of their weight."""
    found = {}
    for shape in ((OUT, IN), (IN, OUT), LARGE, LARGE[::-1]):
        torch.manual_seed(0)
        model = OneLayer(*shape)
        torch.nn.init.normal_(model.linear.weight)
        found[shape] = save_base(model.to(getattr(torch, request.param)), tmp_path_factory.mktemp("base"))
    return found


def _by_peft(base: Path, adapter: Path) -> Any:
    return peft.PeftModel.from_pretrained(model_of(base), adapter)


@pytest.mark.parametrize("name", CASES)
def test_a_merge_without_torch_is_at_least_as_exact_as_pefts(
    bases: dict[Any, Path], name: str, tmp_path: Path
) -> None:
    base = bases[CASES[name].shape]
    adapter = save_adapter(model_of(base), CASES[name].config(), tmp_path / "adapter")
    assert kernels_of(base, adapter) == ("llvm",)

    ours = merged(base, [adapter], tmp_path / "merged")["linear.weight"]

    theirs = _by_peft(base, adapter).merge_and_unload().linear.weight.detach()
    with torch.no_grad():
        live = _by_peft(base, adapter).double().base_model.model.linear
        exact = CASES[name].exact(live, live.base_layer.weight)
    our_error, their_error = (ours.double() - exact).abs(), (theirs.double() - exact).abs()
    change = (exact - weights_of(base)["linear.weight"].double()).abs()
    noise = _noise(name, ours.dtype, change, live)
    assert our_error.max() <= their_error.max() + noise.max()
    assert our_error.mean() <= their_error.mean() + noise.mean()
    # Two roundings to float32 precede the last one: of the update, and of the sum.
    bound = _unit(ours) / 2 + 2.0**-24 * (change + exact.abs()) + noise
    assert (our_error <= bound).all()
    assert ((ours.double() - theirs.double()).abs() <= bound + their_error).all()


def _noise(name: str, dtype: Any, change: Any, layer: Any) -> Any:
    """The largest error of each element of an update before it is rounded: 0 if it is computed in float64 or
    copied. A transform of n numbers in float32 rounds log₂(n) times. A sum of n terms in float32 has an error
    of about √n roundings of the sum of the terms' sizes (Higham and Mary, 2019).
    """
    if "randlora" in name:
        return math.sqrt(_float32_additions(layer, dtype)) * 2.0**-24 * _sizes_of_terms(layer)
    if "fourierft" in name and dtype != torch.float32:
        return torch.full_like(change, math.ceil(math.log2(IN)) * 2.0**-24 * change.max().item())
    return torch.zeros_like(change)


def _float32_additions(layer: Any, dtype: Any) -> int:
    """The number of float32 additions for an element of RandLoRA's update: over the bases, and then over the
    ranks. For a float32 weight, sums of 64 bases, and of 256 terms in all, are added in float64.
    """
    rank, bases = layer.randlora_lambda["default"].shape
    if dtype == torch.float32:
        bases = min(bases, 64)
        rank = min(rank, max(1, 256 // bases))
    return int(rank + bases)


def _sizes_of_terms(layer: Any) -> Any:
    """The sum of the absolute values of the terms of each element of RandLoRA's update."""
    numbers = (layer.randlora_lambda, layer.randlora_gamma, layer.randlora_A, layer.randlora_B)
    with torch.no_grad():
        for each in numbers:
            each["default"].abs_()
        return layer.get_delta_weight("default")


def _unit(tensor: Any) -> Any:
    """The distance between a number of this dtype and the next larger one, in float64."""
    size = tensor.abs()
    return torch.nextafter(size, torch.full_like(size, torch.inf)).double() - size.double()
