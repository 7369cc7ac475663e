"""Uni-LoRA: all factors of all modules read from one short vector (arXiv 2506.00799; PEFT `tuners/unilora`).

A seed determines which number goes to which element, over the modules in the order in which the model
registered them. Only with `save_indices` does a file have these indices, and the names of its modules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import (
    Method,
    ModuleSize,
    ModuleTensors,
    Shapes,
    add_delta,
    common_number,
    factor_product,
    product_rows,
    trained_rank,
)
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.core.errors import InvalidWeights

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Floats


def _has_places(config: AdapterConfig) -> bool:
    return config.flag("save_indices")


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    common_number(config.rank("theta_d_length", 256), *shapes["theta"])
    if not _has_places(config):
        return ModuleSize(config.rank(default=4), 0, 0)
    (rank, fan_in), (fan_out, up) = shapes["A_places"], shapes["B_places"]
    for side in "AB":
        if shapes[f"{side}_places"] != shapes[f"{side}_scales"]:
            raise ValueError("the indices and scales have different shapes")
    return ModuleSize(trained_rank(config, common_number(rank, up), 4), fan_in, fan_out)


def _factor(parts: ModuleTensors, side: str) -> Tensor:
    places, theta = parts[f"{side}_places"].long(), parts["theta"]
    _require_within(parts, int(places.min()), int(places.max()), len(theta))
    scales = parts[f"{side}_scales"].to(parts.dtype)  # PEFT holds them in the base's dtype
    return theta[places] * scales


def _require_within(parts: ModuleTensors | ModuleArrays, lowest: int, highest: int, count: int) -> None:
    """Checks that the indices are within range. Raises `InvalidWeights` otherwise."""
    if lowest < 0 or highest >= count:
        raise InvalidWeights(f"{parts.module.path} has indices outside the adapter's {count} values")


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    if (parts.shape("B_places")[0], parts.shape("A_places")[1]) != shape:
        return None

    def factor(side: str) -> Floats:
        places, theta = parts[f"{side}_places"], parts["theta"]
        _require_within(parts, int(places.min()), int(places.max()), len(theta))
        taken: Floats = theta[places]
        return taken * parts.rounded(parts[f"{side}_scales"])

    return RowFormula("sum", parts.module.rank, lambda: FormulaArrays(((factor("B"), factor("A")),)))


def _factors(parts: ModuleTensors, fan_out: int, fan_in: int) -> tuple[Tensor, Tensor]:
    return _factor(parts, "B"), _factor(parts, "A")


def _unmergeable_reason(config: AdapterConfig) -> str | None:
    if _has_places(config):
        return None
    return (
        "its file lacks the indices, which assign the trained numbers to modules: set save_indices to"
        " true in adapter_config.json, load it with PEFT, which draws them again, save it, and merge the"
        " saved adapter"
    )


METHOD = Method(
    name="unilora",
    title="Uni-LoRA",
    key_patterns={
        **{f"unilora_indices_{side}": f"{side}_places" for side in "AB"},
        **{f"unilora_scales_{side}": f"{side}_scales" for side in "AB"},
    },
    shared={"unilora_theta_d": "theta"},
    module_size=_module_size,
    products=(("theta",),),
    untrained_roles="[AB]_scales",
    weight=add_delta(factor_product(_factors)),
    rows=product_rows(_factors),
    formula=_formula,
    lora_form="exact",
    factors=_factors,
    lora_rank=lambda module, config: module.rank,
    unmergeable_reason=_unmergeable_reason,
    required_shared=lambda config: ("theta",),
    tolerance="bit-equal; refused without saved indices, with instructions to save them",
    names_modules=_has_places,
    integer_roles=frozenset({"A_places", "B_places"}),
)
