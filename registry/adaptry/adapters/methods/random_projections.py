"""Random matrices that a method draws again from a seed if its file does not have them.

They depend on torch's generator, which so far gives the same numbers on every CPU but does not guarantee it,
and on the largest of all adapted matrices, not on one module only.
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
    """Whether the file has the projections: as in PEFT, unless the config says that it does not."""
    return config.fields.get("save_projection") is not False


def saved_projections(config: AdapterConfig) -> tuple[str, ...]:
    """The shared tensors that a file must have if its projections are saved."""
    return ("A", "B") if is_projection_saved(config) else ()


def unsaved_projections(config: AdapterConfig, shared: Mapping[str, str]) -> list[str]:
    """The projections in a file whose config says that they were not saved: PEFT drops them."""
    if is_projection_saved(config):
        return []
    return sorted(name for role, name in shared.items() if role in ("A", "B"))


def projection_seed(config: AdapterConfig, key: str, default: int) -> int:
    value = config.fields.get(key, default)
    if type(value) is not int or not -(2**63) <= value < 2**64:  # the range of torch's generator
        raise InvalidConfig(f"adapter_config.json: {key} must be a whole number, not {str(value)[:40]!r}")
    return value


def seeded_generator(config: AdapterConfig, key: str, default: int) -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(projection_seed(config, key, default))


def largest_sides(parts: ModuleTensors) -> tuple[int, int]:
    """(outputs, inputs): the largest number of each among all matrices of the adapter."""
    outputs, inputs = zip(*parts.sides.values(), strict=True)
    return max(outputs), max(inputs)


def positions(
    parts: ModuleTensors, count: int, fan_out: int, fan_in: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows [count] and columns [count] of places in a matrix, drawn like PEFT's FourierFT and WaveFT."""
    import torch

    order = torch.randperm(fan_out * fan_in, generator=seeded_generator(parts.config, "random_loc_seed", 777))
    return order[:count] // fan_in, order[:count] % fan_in


def matrix_sides(parts: ModuleTensors, shape: tuple[int, ...]) -> tuple[int, int]:
    """(outputs, inputs) of a matrix stored in `shape`."""
    return (shape[1], shape[0]) if parts.orientation == "conv1d" else (shape[0], shape[1])
