"""Finds the fields of PEFT's config for which its LoKr has the same factors as a LyCORIS file.

Neither tool stores how it divided a weight. PEFT divides it again by `decompose_factor`, and decides by `r`
and `decompose_both` whether a factor is whole or a product (`tuners/lokr/layer.py ·
create_adapter_parameters`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adaptry.adapters.methods.lokr import factorisation
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.foreign_layouts.peft_adapter import ForeignInput
from adaptry.compute.lazy_adapters.lazy_adapter import Json
from adaptry.core.errors import Unsupported
from adaptry.core.lazy_dataclass import dataclass

_Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class LokrConfig:
    """The config's fields, and for each module (by its path in the file) the `r` that it needs."""

    fields: Json
    ranks: Mapping[str, int]


def lokr_config(entry: ForeignInput, modules: Sequence[ModuleSpec], weights: _Shapes) -> LokrConfig:
    """The config of a LoKr. `weights` has the shape of each module's weight. Raises `Unsupported` if no
    config makes PEFT divide them like this.
    """
    tensors = entry.adapter.tensors
    shapes = {
        module.path: {role: tensors[name].shape for role, name in module.tensors.items()}
        for module in modules
    }
    left = {path: _first_factor(own) for path, own in shapes.items()}
    sides = {side for pair in left.values() for side in pair}
    factor = next((each for each in (-1, *sorted(sides)) if _has_factorisation(each, left, weights)), None)
    if factor is None:
        raise Unsupported(
            f"{entry.label} divides its weights in a way that PEFT does not support"
            " (unbalanced_factorization of"
            " LyCORIS, or several factors in one file): merge it with LyCORIS"
        )
    fields = {
        "decompose_factor": factor,
        "decompose_both": any("lokr_w1_a" in own for own in shapes.values()),
    }
    return LokrConfig(fields, {path: _rank(own, left[path], weights[path]) for path, own in shapes.items()})


def _first_factor(shapes: _Shapes) -> tuple[int, int]:
    """(outputs, inputs) of w1."""
    if "lokr_w1" in shapes:
        fan_out, fan_in = shapes["lokr_w1"]
        return fan_out, fan_in
    return shapes["lokr_w1_a"][0], shapes["lokr_w1_b"][1]


def _has_factorisation(factor: int, left: Mapping[str, tuple[int, int]], weights: _Shapes) -> bool:
    return all(
        (factorisation(weights[path][0], factor)[0], factorisation(weights[path][1], factor)[0]) == pair
        for path, pair in left.items()
    )


def _rank(shapes: _Shapes, left: tuple[int, int], weight: tuple[int, ...]) -> int:
    """The rank of the factored matrices; if neither is factored, the smallest rank for which PEFT does not
    factor w2.
    """
    for role in ("lokr_w2_b", "lokr_w1_b"):
        if role in shapes:
            return shapes[role][0]
    return max(1, -(-max(weight[0] // left[0], weight[1] // left[1]) // 2))
