"""GraLoRA: a low-rank update for each block of a grid, with shared factors (arXiv 2505.20355; PEFT
`tuners/gralora`). With `hybrid_r`, it adds a plain LoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    WeightSides,
    add_delta,
    common_number,
    trained_rank,
)
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Floats


def _blocks(config: AdapterConfig) -> int:
    return config.rank("gralora_k", 2)


def _hybrid_rank(config: AdapterConfig) -> int:
    return int(config.number("hybrid_r", 0))


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    (blocks, fan_in, rank), (again, up, fan_out) = shapes["A"], shapes["B"]
    common_number(_blocks(config), blocks, again)
    trained_rank(config, common_number(rank, up), 32)
    if rank % blocks:
        raise ValueError(f"a rank of {rank} cannot be divided among {blocks} blocks")
    if hybrid := _hybrid_rank(config):
        (down, inputs), (outputs, up) = shapes["A_general"], shapes["B_general"]
        common_number(hybrid, down, up)
        common_number(fan_in * blocks, inputs)
        common_number(fan_out * blocks, outputs)
    return ModuleSize(rank, fan_in * blocks, fan_out * blocks)


def _cannot_adapt(weight: WeightSides, config: AdapterConfig) -> str | None:
    blocks = _blocks(config)
    if not (weight.fan_in % blocks or weight.fan_out % blocks):
        return None
    return f"is cut into {blocks:,} blocks, but this base's weight is {weight.fan_out:,}×{weight.fan_in:,}"


def _scale(config: AdapterConfig, module: ModuleSpec) -> float:
    return config.number("alpha", 64) / (module.rank + _hybrid_rank(config))


def _mixed(parts: ModuleTensors) -> Tensor:
    """The inputs' factors, arranged for each block of outputs: [inputs, blocks, rank]."""
    import torch

    down = parts["A"]
    blocks, width, rank = down.shape
    # [inputs, blocks, rank]: each input has the factor of its block, and zero for the others.
    spread = torch.zeros(blocks, width, blocks, rank)
    for block in range(blocks):
        spread[block, :, block] = down[block]
    # The ranks of each block are divided equally among the blocks of outputs.
    mixed = spread.view(blocks * width, blocks, blocks, rank // blocks).permute(0, 2, 1, 3)
    return mixed.reshape(blocks * width, blocks, rank)


def _delta(parts: ModuleTensors, shape: tuple[int, ...]) -> Tensor:
    import torch

    mixed = _mixed(parts)
    update = torch.einsum("ikr,kro->iko", mixed, parts["B"]).reshape(mixed.shape[0], -1).T
    if _hybrid_rank(parts.config):
        update = update + parts["B_general"] @ parts["A_general"]
    return (update.T if parts.orientation == "conv1d" else update) * parts.module.scale


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    """The update as one product, with zeros between the blocks, plus the general LoRA."""
    (blocks, width, rank), height = parts.shape("A"), parts.shape("B")[2]
    if (blocks * height, blocks * width) != shape or rank % blocks:
        return None
    # torch multiplies the blocks of outputs one by one.
    if not parts.multiplies((blocks * width, rank), (parts.shape("B")[1], height)):
        return None
    depth, is_hybrid = blocks * rank, bool(_hybrid_rank(parts.config))
    if is_hybrid and (parts.shape("B_general")[0], parts.shape("A_general")[1]) != shape:
        return None
    if is_hybrid:
        depth = max(depth, parts.shape("A_general")[0])

    def read() -> FormulaArrays:
        factors = [_filled(*_grid_factors(parts["A"], parts["B"]), depth)]
        if is_hybrid:
            factors.append(_filled(parts["B_general"], parts["A_general"], depth))
        return FormulaArrays(tuple(factors), parts.module.scale)

    return RowFormula("summed" if is_hybrid else "sum", depth, read)


def _grid_factors(down: Floats, up: Floats) -> tuple[Floats, Floats]:
    """up [out, r] and down [r, in], from A [blocks, in/blocks, rank] and B [blocks, rank, out/blocks]."""
    import numpy as np

    blocks, width, rank = down.shape
    share, height = rank // blocks, up.shape[2]
    tall = np.zeros((blocks, height, blocks, rank), np.float32)
    wide = np.zeros((blocks, blocks, share, blocks, width), np.float32)
    for block in range(blocks):
        tall[block, :, block] = up[block].T
        for other in range(blocks):
            # The inputs of block `other` have the ranks of their share in the outputs of `block`.
            wide[block, other, :, other] = down[other][:, block * share : (block + 1) * share].T
    return tall.reshape(blocks * height, -1), wide.reshape(blocks * rank, -1)


def _filled(up: Floats, down: Floats, depth: int) -> tuple[Floats, Floats]:
    """The factors with zeros up to `depth` ranks."""
    import numpy as np

    missing = depth - len(down)
    return np.pad(up, ((0, 0), (0, missing))), np.pad(down, ((0, missing), (0, 0)))


def _factors(parts: ModuleTensors, fan_out: int, fan_in: int) -> tuple[Tensor, Tensor]:
    """up [out, r] and down [r, in]: block-diagonal, since each block of outputs has its own ranks."""
    import torch

    # torch does not annotate `block_diag`.
    up: Tensor = torch.block_diag(*(block.T for block in parts["B"]))  # type: ignore[no-untyped-call]
    down = _mixed(parts).permute(1, 2, 0).flatten(0, 1)
    if _hybrid_rank(parts.config):
        up = torch.cat([up, parts["B_general"]], dim=1)
        down = torch.cat([down, parts["A_general"]], dim=0)
    return up * parts.module.scale, down


METHOD = Method(
    name="gralora",
    title="GraLoRA",
    key_patterns={
        **{f"gralora_{side}": side for side in "AB"},
        **{rf"gralora_{side}_general\.weight": f"{side}_general" for side in "AB"},
    },
    module_size=_module_size,
    products=(("A", "B"), ("A_general", "B_general")),
    scale=_scale,
    weight=add_delta(_delta),
    formula=_formula,
    cannot_adapt=_cannot_adapt,
    lora_form="exact",
    factors=_factors,
    lora_rank=lambda module, config: _blocks(config) * module.rank + _hybrid_rank(config),
)
