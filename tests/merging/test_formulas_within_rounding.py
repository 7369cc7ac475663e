"""Changes of methods whose bits depend on torch's own libraries (transforms, LAPACK, sums over a whole side),
computed without torch.

They are compared with PEFT's merge and with PEFT's update in float64. With u half a unit in the last place
of the result's dtype, our one rounding is within u of the exact number, so two merges differ by at most u and
PEFT's own error.
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

OUT, IN = 480, 1056


@dataclass(frozen=True)
class Case:
    """A config, and PEFT's result in float64 from its layer and W, both in float64."""

    config: Callable[[], Any]
    exact: Callable[[Any, Any], Any]


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
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = OneLayer(OUT, IN)
    torch.nn.init.normal_(model.linear.weight)
    return save_base(model.to(getattr(torch, request.param)), tmp_path_factory.mktemp("base"))


def _by_peft(base: Path, adapter: Path) -> Any:
    return peft.PeftModel.from_pretrained(model_of(base), adapter)


@pytest.mark.parametrize("name", CASES)
def test_a_merge_without_torch_is_at_least_as_exact_as_pefts(base: Path, name: str, tmp_path: Path) -> None:
    adapter = save_adapter(model_of(base), CASES[name].config(), tmp_path / "adapter")
    assert kernels_of(base, adapter) == ("llvm",)

    ours = merged(base, [adapter], tmp_path / "merged")["linear.weight"]

    theirs = _by_peft(base, adapter).merge_and_unload().linear.weight.detach()
    with torch.no_grad():
        live = _by_peft(base, adapter).double().base_model.model.linear
        exact = CASES[name].exact(live, live.base_layer.weight)
    our_error, their_error = (ours.double() - exact).abs(), (theirs.double() - exact).abs()
    assert our_error.max() <= their_error.max()
    assert our_error.mean() <= their_error.mean()
    # Before the rounding to the result's dtype, two to float32: of the update, and of the sum. FourierFT's
    # update in float32 is wrong by log₂(in) roundings of its largest numbers; in float64 this is nothing.
    change = (exact - weights_of(base)["linear.weight"].double()).abs()
    if "fourierft" in name and ours.dtype != torch.float32:
        change = change.max() * math.log2(IN)
    bound = _unit(ours) / 2 + 2.0**-24 * (change + exact.abs())
    assert (our_error <= bound).all()
    assert ((ours.double() - theirs.double()).abs() <= bound + their_error).all()


def _unit(tensor: Any) -> Any:
    """The distance between a number of this dtype and the next larger one, in float64."""
    size = tensor.abs()
    return torch.nextafter(size, torch.full_like(size, torch.inf)).double() - size.double()
