"""VeRA: two shared random matrices, scaled by trained vectors (arXiv 2310.11454; PEFT `tuners/vera`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    factor_product,
    product_rows,
    trained_rank,
)
from adaptry.adapters.methods.random_projections import (
    is_projection_saved,
    largest_of,
    largest_sides,
    seeded_generator,
)
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.adapters.spec import ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor


def _exceeds_shared_matrices(
    module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides
) -> str | None:
    if not is_projection_saved(config):
        return None
    fan_out = shapes["B"][0] if "B" in shapes else weight.fan_out
    if shapes["A"][1] >= weight.fan_in and fan_out >= weight.fan_out:
        return None
    reach = f"{fan_out:,}×{shapes['A'][1]:,}"
    side = f"{weight.fan_out:,}×{weight.fan_in:,}"
    return f"has shared matrices for weights of up to {reach}, but this base's is {side}"


def _shared_pair(parts: ModuleTensors, rows_of_down: int) -> tuple[Tensor, Tensor]:
    """A and B, from the file or drawn from the seed, in the dtype in which PEFT draws and holds them.

    PEFT requires only A to be saved; if the file has no B, it keeps the one that it has drawn.
    """
    import torch

    is_saved = is_projection_saved(parts.config)
    if is_saved and "B" in parts:
        return parts["A"], parts["B"]
    fan_out, fan_in = largest_sides(parts)
    source = seeded_generator(parts.config, "projection_prng_key", 0)
    drawn = []
    for rows, columns in ((rows_of_down, fan_in), (fan_out, parts.module.rank)):
        bound = math.sqrt(3.0) * (math.sqrt(2) / math.sqrt(columns))
        drawn.append(torch.empty(rows, columns).uniform_(-bound, bound, generator=source))
    down, up = (matrix.to(parts.dtype).float() for matrix in drawn)
    return parts["A"] if is_saved else down, up


def vera(name: str, title: str, rows_per_rank: int) -> Method:
    """The method VeRA, or PVeRA, whose down has two rows for each column of up: means, then log variances."""

    def module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
        (length,), (fan_out,) = shapes["d"], shapes["b"]
        rank = trained_rank(config, length // rows_per_rank, 256)
        common_number(length, rows_per_rank * rank)
        if is_projection_saved(config):
            columns = shapes["B"][1] if "B" in shapes else rank
            common_number(length, shapes["A"][0], rows_per_rank * columns)
        return ModuleSize(rank, 0, fan_out)

    def factors(parts: ModuleTensors, fan_out: int, fan_in: int) -> tuple[Tensor, Tensor]:
        """up = diag(b)·B [out, r] and down = diag(d)·A [r, in], from the corner of the shared matrices that
        this module uses.
        """
        rank = parts.module.rank
        down, up = _shared_pair(parts, rows_per_rank * rank)
        scaled_up = parts["b"].unsqueeze(-1) * up[:fan_out, :]
        return scaled_up, parts["d"][:rank].unsqueeze(-1) * down[:rank, :fan_in]

    def formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
        if not is_projection_saved(parts.config) or "B" not in parts:
            return None
        rank, (fan_out, fan_in) = parts.module.rank, shape
        if parts.shape("B")[0] < fan_out or parts.shape("A")[1] < fan_in or parts.shape("b") != (fan_out,):
            return None

        def read() -> FormulaArrays:
            up = parts["b"][:, None] * parts["B"][:fan_out]
            return FormulaArrays(((up, parts["d"][:rank, None] * parts["A"][:rank, :fan_in]),))

        return RowFormula("sum", rank, read)

    def shapes_in_model(weights: Mapping[str, WeightSides], config: AdapterConfig) -> Mapping[str, Shapes]:
        """The shapes of the shared matrices, which are as large as the largest sides."""
        if not weights or not is_projection_saved(config):
            return {}
        rank, (fan_out, fan_in) = config.rank(default=256), largest_of(weights.values())
        return {"": {"A": (rank * rows_per_rank, fan_in), "B": (fan_out, rank)}}

    return Method(
        name=name,
        title=title,
        key_patterns={f"{name}_lambda_b": "b", f"{name}_lambda_d": "d"},
        shared={f"{name}_A": "A", f"{name}_B": "B"},
        tolerance="bit-equal; without saved projections, only with the version of torch that drew them",
        module_size=module_size,
        products=(("b", "d"),),
        untrained_roles="[AB]",
        weight=add_delta(factor_product(factors)),
        rows=product_rows(factors),
        formula=formula,
        required_shared=lambda config: ("A",) if is_projection_saved(config) else (),
        mismatch=_exceeds_shared_matrices,
        shapes_in_model=shapes_in_model,
        lora_form="exact",
        factors=factors,
        lora_rank=lambda module, config: module.rank,
    )


METHOD = vera("vera", "VeRA", rows_per_rank=1)
