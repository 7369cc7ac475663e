"""Super-Tuning: trains the largest (or smallest) elements of a weight and, with `r`, also a LoRA (arXiv
2607.09287; PEFT `tuners/supertuning`).

If the file does not have the positions of the elements, they are found again from the base's values.
"""

from __future__ import annotations

from collections.abc import Callable
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
from adaptry.adapters.methods.row_formula import FormulaArrays, ModuleArrays, RowFormula
from adaptry.adapters.spec import ModuleSpec
from adaptry.core.errors import InvalidWeights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from adaptry.adapters.methods.row_formula import Floats


def _has_places(config: AdapterConfig) -> bool:
    return config.fields.get("save_precomputed_indices") is not False


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    (count,) = shapes["values"]
    if _has_places(config):
        common_number(count, *shapes["indices"])
    elif "indices" in shapes:
        raise ValueError("the config says that the positions were not saved")
    if config.fields.get("r") is None:
        return ModuleSize(0, 0, 0)
    (rank, fan_in), (fan_out, up) = shapes["A"], shapes["B"]
    return ModuleSize(trained_rank(config, common_number(rank, up)), fan_in, fan_out)


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    (count,), wanted = (
        shapes["values"],
        int(weight.fan_out * weight.fan_in * (1 - config.number("sparsity", 0.99))),
    )
    if count == wanted:
        return None
    return (
        f"changes {count:,} elements, but according to its sparsity it should be {wanted:,} of this base's"
        " weight"
    )


def _scale(config: AdapterConfig, module: ModuleSpec) -> float:
    return config.number("lora_alpha", module.rank) / module.rank if module.rank else 1.0


def _selected_positions(weight: Tensor, parts: ModuleTensors) -> Tensor:
    import torch

    if not _has_places(parts.config):
        largest = parts.config.fields.get("select_top") is not False
        return torch.topk(weight.abs().flatten(), k=len(parts["values"]), largest=largest).indices
    places = parts["indices"].long()
    if int(places.min()) < 0 or int(places.max()) >= weight.numel():
        raise _outside(parts.module, weight.numel())
    return places


def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    values = parts["values"].to(weight.dtype)
    changed = (
        weight.flatten().scatter_add(0, _selected_positions(weight, parts), values).reshape(weight.shape)
    )
    if parts.module.rank:
        changed = changed + (parts.module.scale * (parts["B"] @ parts["A"])).to(weight.dtype)
    return changed


def _formula(parts: ModuleArrays, shape: tuple[int, int]) -> RowFormula | None:
    has_product = bool(parts.module.rank)
    if not _has_places(parts.config) or (
        has_product and not parts.multiplies(parts.shape("B"), parts.shape("A"))
    ):
        return None

    def read() -> FormulaArrays:
        import numpy as np

        places = parts["indices"].astype(np.int64)
        if places.size and (places.min() < 0 or places.max() >= shape[0] * shape[1]):
            raise _outside(parts.module, shape[0] * shape[1])
        order = np.argsort(places, kind="stable")
        places, values = places[order], parts.rounded(parts["values"][order])

        def write(first: int, rows: Floats) -> None:
            begin, end = np.searchsorted(places, (first * shape[1], (first + len(rows)) * shape[1]))
            _add_in_turn(
                rows.reshape(-1), places[begin:end] - first * shape[1], values[begin:end], parts.rounded
            )
            if has_product:
                product = parts.product("B", "A", slice(first, first + len(rows)))
                rows += parts.rounded(product * np.float32(parts.module.scale))

        return FormulaArrays(write_rows=write)

    return RowFormula("mapped", 0, read)


def _add_in_turn(
    flat: Floats, places: NDArray[np.int64], values: Floats, rounded: Callable[[Floats], Floats]
) -> None:
    """Adds values at sorted places, and rounds after each of several values for the same place."""
    import numpy as np

    while len(places):
        is_first = np.concatenate(([True], places[1:] != places[:-1]))
        at = places[is_first]
        flat[at] = rounded(flat[at] + values[is_first])
        places, values = places[~is_first], values[~is_first]


def _outside(module: ModuleSpec, elements: int) -> InvalidWeights:
    return InvalidWeights(f"{module.path} changes elements beyond the {elements:,} of the base's weight")


METHOD = Method(
    name="supertuning",
    title="Super-Tuning",
    key_patterns={
        "supertuning_values": "values",
        "supertuning_indices": "indices",
        **{rf"supertuning_lora_{side}\.weight": side for side in "AB"},
    },
    module_size=_module_size,
    products=(("values",), ("A", "B")),
    scale=_scale,
    weight=_weight,
    formula=_formula,
    mismatch=_mismatch,
    depends_on_base=lambda config: not _has_places(config),
    integer_roles=frozenset({"indices"}),
)
