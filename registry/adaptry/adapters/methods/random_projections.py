"""Random matrices that a method draws again from a seed where its files do not hold them.

They depend on torch's generator, the same on every CPU so far and promised by nobody; and on the widest of
all adapted matrices, so on more than one module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import ModuleTensors
from adaptry.core.errors import InvalidConfig

if TYPE_CHECKING:
    import torch


def is_projection_saved(config: AdapterConfig) -> bool:
    """PEFT: projections are in the file unless the config says that they are not."""
    return config.fields.get("save_projection") is not False


def saved_projections(config: AdapterConfig) -> tuple[str, ...]:
    """The shared tensors that a file must then have."""
    return ("A", "B") if is_projection_saved(config) else ()


def unsaved_projections(config: AdapterConfig, shared: Mapping[str, str]) -> list[str]:
    """The projections that a file has although its config says that they are not in it: PEFT drops them."""
    if is_projection_saved(config):
        return []
    return sorted(name for role, name in shared.items() if role in ("A", "B"))


def projection_seed(config: AdapterConfig, key: str, default: int) -> int:
    value = config.fields.get(key, default)
    if type(value) is not int or not -(2**63) <= value < 2**64:  # what torch's generator takes
        raise InvalidConfig(f"adapter_config.json: {key} must be a whole number, not {str(value)[:40]!r}")
    return value


def seeded_generator(config: AdapterConfig, key: str, default: int) -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(projection_seed(config, key, default))


def largest_sides(parts: ModuleTensors) -> tuple[int, int]:
    """(outputs, inputs): the most of each that any matrix of the adapter has."""
    outputs, inputs = zip(*parts.sides.values(), strict=True)
    return max(outputs), max(inputs)


def positions(
    parts: ModuleTensors, count: int, fan_out: int, fan_in: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, columns) of `count` places in a matrix, drawn as FourierFT and WaveFT in PEFT draw them."""
    import torch

    order = torch.randperm(fan_out * fan_in, generator=seeded_generator(parts.config, "random_loc_seed", 777))
    return order[:count] // fan_in, order[:count] % fan_in


def matrix_sides(parts: ModuleTensors, shape: tuple[int, ...]) -> tuple[int, int]:
    """(outputs, inputs) of a matrix stored in `shape`."""
    return (shape[1], shape[0]) if parts.orientation == "conv1d" else (shape[0], shape[1])
