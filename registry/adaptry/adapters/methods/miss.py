"""MiSS: a block of rows repeated along the inputs, and its predecessor Bone (arXiv 2409.15371; PEFT `miss`).

`init_weights` selects the form: plain, `mini` (the block is also repeated along the outputs) or `bat` (blocks
that also multiply the base's). PEFT 0.14 to 0.18 called the plain form and `bat` Bone, and wrote
`bone_block`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    WeightSides,
    common_number,
    trained_rank,
)
from adaptry.adapters.methods.row_change import RowChange, is_matrix, row_change
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Floats


def _form(config: AdapterConfig) -> str:
    form = config.fields.get("init_weights")
    return form if form in ("bat", "mini") else "plain"


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    block = shapes["block"]
    match _form(config):
        case "bat":
            count, rank, again = block
            return ModuleSize(trained_rank(config, common_number(rank, again), 64), 0, count * rank)
        case "mini":
            rank, width = block
            common_number(width, config.rank("mini_r", 1))
            return ModuleSize(trained_rank(config, rank, 64), 0, 0)
    rank, fan_out = block
    if not fan_out:
        raise ValueError("a block without outputs")
    return ModuleSize(trained_rank(config, rank, 64), 0, fan_out)


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    block = shapes["block"]
    rank = block[0] if _form(config) != "bat" else block[1]
    if rank > weight.fan_in:
        return f"has a block of {rank:,} rows, but this base's weight has {weight.fan_in:,} inputs"
    if weight.fan_out % block[-1] or (_form(config) == "bat" and weight.fan_in % rank):
        return (
            f"has blocks of {rank:,}×{block[-1]:,}, which do not divide this base's weight of"
            f" {weight.fan_out:,}×{weight.fan_in:,}"
        )
    return None


def _cannot_adapt(weight: WeightSides, config: AdapterConfig) -> str | None:
    rank, form = config.rank("r", 64), _form(config)
    if rank > weight.fan_in:
        return f"has a block of {rank:,} rows, but this base's weight has {weight.fan_in:,} inputs"
    columns = config.rank("mini_r", 1) if form == "mini" else rank if form == "bat" else 1
    if weight.fan_out % columns or (form == "bat" and weight.fan_in % rank):
        return (
            f"has blocks of {rank:,}×{columns:,}, which do not divide this base's weight of"
            f" {weight.fan_out:,}×{weight.fan_in:,}"
        )
    return None


def _lora_rank(module: ModuleSpec, config: AdapterConfig) -> int | None:
    return None if _form(config) == "bat" else module.rank


def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    block, rank = parts["block"], parts.module.rank
    fan_out, fan_in = weight.shape
    if _form(parts.config) == "bat":
        tiles = weight.float().reshape(fan_out // rank, rank, fan_in // rank, rank).permute(2, 0, 1, 3)
        update = (tiles @ block + block).permute(1, 2, 0, 3).reshape(fan_out, fan_in)
    else:
        update = _column(parts, fan_out).repeat(1, -(-fan_in // rank))[:, :fan_in]
    return (weight.float() + update).to(weight.dtype)


def _column(parts: ModuleTensors, fan_out: int) -> Tensor:
    """The block [fan_out, r] that is repeated along the inputs."""
    if "column" in parts:
        return parts["column"]
    block = parts["block"]
    return block.T.repeat(fan_out // block.shape[1], 1)


def _rows(parts: ModuleTensors, shape: tuple[int, ...]) -> RowChange | None:
    if _form(parts.config) == "bat" or not is_matrix(parts, shape):
        return None  # "bat" mixes the rows of a tile
    return row_change(_weight, parts, shape, {"column": _column(parts, shape[0])})


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    fan_out, fan_in = shape
    if _form(parts.config) == "bat" or len(parts.shape("block")) != 2 or fan_out % parts.shape("block")[1]:
        return None

    def read() -> FormulaArrays:
        import numpy as np

        block = parts["block"]
        column = np.tile(block.T, (fan_out // block.shape[1], 1))

        def write(first: int, rows: Floats) -> None:
            for start in range(0, fan_in, column.shape[1]):
                part = rows[:, start : start + column.shape[1]]
                part[:] = column[first : first + len(rows), : part.shape[1]]

        return FormulaArrays(write_rows=write)

    return RowFormula("dense", 0, read)


def _factors(parts: ModuleTensors, fan_out: int, fan_in: int) -> tuple[Tensor, Tensor]:
    """up [fan_out, r] and down [r, fan_in]: repeated identities, so that the product repeats the block."""
    import torch

    rank = parts.module.rank
    return _column(parts, fan_out), torch.eye(rank).repeat(1, -(-fan_in // rank))[:, :fan_in].contiguous()


METHOD = Method(
    name="miss",
    title="MiSS",
    key_patterns={"miss_block": "block"},
    module_size=_module_size,
    products=(("block",),),
    weight=_weight,
    rows=_rows,
    formula=_formula,
    mismatch=_mismatch,
    cannot_adapt=_cannot_adapt,
    lora_form="exact",
    lora_form_of_variant=lambda config: "approximate" if _form(config) == "bat" else None,
    factors=_factors,
    lora_rank=_lora_rank,
    depends_on_base=lambda config: _form(config) == "bat",
)

BONE = replace(METHOD, name="bone", title="Bone", key_patterns={"bone_block": "block"})
