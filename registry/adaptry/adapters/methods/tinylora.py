"""TinyLoRA: a few numbers, shared by groups of modules, through fixed random matrices (arXiv 2602.04118; PEFT
`tuners/tinylora`).

A module's group follows from its position in the order in which the model registered its modules. The file
does not have this position, but it can be found, since the seed of the module's random matrices contains it.
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
)
from adaptry.adapters.methods.random_projections import is_projection_saved, projection_seed
from adaptry.core.errors import InvalidWeights

if TYPE_CHECKING:
    from torch import Tensor


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    (rank, fan_in), (fan_out, up) = shapes["A"], shapes["B"]
    common_number(min(config.rank("r", 2), fan_in, fan_out), rank, up)
    for vector in [shapes["v.0"], *(shape for role, shape in shapes.items() if role.startswith("v."))]:
        (length,) = vector
        common_number(config.rank("u", 64), length)
    if is_projection_saved(config):
        common_number(rank, *shapes["P"][1:])
        common_number(config.rank("u", 64), shapes["P"][0])
    return ModuleSize(rank, fan_in, fan_out)


def _position(parts: ModuleTensors) -> int:
    """The module's position, found by drawing the matrices for one position after another."""
    import torch

    saved = parts["P"]
    first = projection_seed(parts.config, "projection_seed", 42)
    for place in range(len(parts.sides)):
        source = torch.Generator().manual_seed(first + place)
        deviation = 1.0 / parts.module.rank**0.5
        drawn = torch.normal(mean=0.0, std=deviation, size=tuple(saved.shape), generator=source)
        # During training, they had the dtype of the base.
        if any(
            torch.equal(drawn.to(held).float(), saved) for held in (torch.float32, torch.bfloat16, torch.half)
        ):
            return place
    raise InvalidWeights(
        f"the random matrices of {parts.module.path} match none of its possible positions among the"
        " adapter's modules, so its group is unknown: merge it with PEFT, which builds the model"
    )


def _group(parts: ModuleTensors) -> int:
    groups = sum(f"v.{group}" in parts for group in range(len(parts.sides)))
    if groups == 1:
        return 0
    return min(_position(parts) // max(1, len(parts.sides) // groups), groups - 1)


def _factors(parts: ModuleTensors, fan_out: int, fan_in: int) -> tuple[Tensor, Tensor]:
    import torch

    middle = torch.einsum("i,ijk->jk", parts[f"v.{_group(parts)}"], parts["P"])
    return parts["B"] @ middle, parts["A"]


def _unmergeable_reason(config: AdapterConfig) -> str | None:
    if is_projection_saved(config):
        return None
    return (
        "its file lacks the random matrices, which assign the trained numbers to modules: set"
        " save_projection to true in adapter_config.json, load it with PEFT, which draws them again, save it,"
        " and merge the saved adapter"
    )


METHOD = Method(
    name="tinylora",
    title="TinyLoRA",
    key_patterns={f"tinylora_{role}": role for role in ("A", "B", "P")},
    shared={r"tinylora_v\.(?P<rest>[0-9]+)": "v"},
    module_size=_module_size,
    products=((r"v\.\d+",),),
    untrained_roles="[ABP]",
    weight=add_delta(factor_product(_factors)),
    rows=product_rows(_factors),
    lora_form="exact",
    factors=_factors,
    lora_rank=lambda module, config: module.rank,
    tolerance="bit-equal; refused without saved projections, with instructions to save them",
    unmergeable_reason=_unmergeable_reason,
)
