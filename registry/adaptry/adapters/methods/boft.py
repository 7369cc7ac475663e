"""BOFT: inputs turned by butterfly rotations, outputs scaled (arXiv 2311.06243; PEFT `tuners/boft`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    WeightSides,
    common_number,
)
from adaptry.adapters.methods.orientation import on_matrix
from adaptry.adapters.methods.rotations import block_diagonal, cayley
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    factors, blocks, side, again = shapes["R"]
    *ones, outputs = sorted(shapes["s"])  # a column; a convolution has one more dimension for each side
    common_number(side, again)
    common_number(1, *ones)
    if (config.fields.get("boft_block_size") or side, config.fields.get("boft_block_num") or blocks) != (
        side,
        blocks,
    ):
        raise ValueError("the blocks do not have the size that the config declares")
    declared = config.fields.get("boft_n_butterfly_factor", 1)
    if factors not in (1, declared):  # without its CUDA extension, PEFT always makes one
        raise ValueError(f"the file has {factors:,} butterfly factors, but the config declares {declared!r}")
    return ModuleSize(0, blocks * side, outputs, "flat")


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    """Why PEFT cannot load the outputs' factors: a column for a matrix, a row for a convolution."""
    expected = (1, weight.fan_out) if weight.kernel else (weight.fan_out, 1)
    return None if shapes["s"] == expected else f"has boft_s of {list(shapes['s'])}, not {list(expected)}"


def _cannot_adapt(weight: WeightSides, config: AdapterConfig) -> str | None:
    parts = config.fields.get("boft_block_size") or config.fields.get("boft_block_num")
    if type(parts) is not int or weight.fan_in % parts == 0:
        return None
    return f"rotates inputs in multiples of {parts:,}, but this base's weight has {weight.fan_in:,}"


def _butterfly(width: int, blocks: int, half: int) -> Tensor:
    """The order [in] in which a factor takes the inputs: in each of `blocks` parts, even half-blocks
    first.
    """
    import torch

    parts = torch.arange(width).view(blocks, -1, half)
    return torch.cat((parts[:, ::2], parts[:, 1::2]), dim=1).flatten()


def _rotation(trained: Tensor) -> Tensor:
    """[factors, blocks, n, n] → orthogonal [blocks·n, blocks·n]."""
    factors, blocks, side, _ = trained.shape
    flat = trained.view(factors * blocks, side, side)
    turned = cayley(0.5 * (flat - flat.transpose(1, 2))).view_as(trained)
    product = block_diagonal(turned[0])
    if factors == 1:
        return product
    for number in range(factors):
        order = _butterfly(blocks * side, blocks // 2**number, side // 2)
        factor = block_diagonal(turned[number])[order][:, order]
        product = factor if number == 0 else factor @ product
    return product


@on_matrix
def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    import torch

    turned = torch.mm(_rotation(parts["R"]), weight.t().float()).t()
    return (turned * parts["s"].view(-1, 1)).to(weight.dtype)


METHOD = Method(
    name="boft",
    title="BOFT",
    key_patterns={"boft_R": "R", "boft_s": "s"},
    module_size=_module_size,
    weight=_weight,
    mismatch=_mismatch,
    cannot_adapt=_cannot_adapt,
    needs_base=True,
)
