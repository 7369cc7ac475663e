"""Random matrices that a method draws again from a seed if its file does not have them.

They depend on torch's generator, which so far gives the same numbers on every CPU without guaranteeing it.
They also depend on the largest of all adapted matrices, not on one module only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import ModuleTensors, WeightSides
from adaptry.core.errors import InvalidConfig

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

_DRAWN = 1 << 20
"""Number of draws made at a time."""


def is_projection_saved(config: AdapterConfig) -> bool:
    """Whether the file has the projections. As in PEFT, it does unless the config says that it does not."""
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


def largest_of(weights: Iterable[WeightSides]) -> tuple[int, int]:
    """(outputs, inputs): the largest number of each among these weights."""
    outputs, inputs = zip(*((weight.fan_out, weight.fan_in) for weight in weights), strict=True)
    return max(outputs), max(inputs)


def positions(
    parts: ModuleTensors, count: int, fan_out: int, fan_in: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The positions of `drawn_positions`, as tensors."""
    import torch

    rows, columns = drawn_positions(parts.config, count, fan_out, fan_in)
    return torch.from_numpy(rows), torch.from_numpy(columns)


def drawn_positions(
    config: AdapterConfig, count: int, fan_out: int, fan_in: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows [count] and columns [count] of `count` positions, drawn as in PEFT's FourierFT and WaveFT."""
    seed = projection_seed(config, "random_loc_seed", 777) % 2**32  # torch's generator ignores the other bits
    places = _first_of_permutation(seed, count, fan_out * fan_in)
    return places // fan_in, places % fan_in


@lru_cache(maxsize=32)  # the layers of a model have few shapes
def _first_of_permutation(seed: int, count: int, size: int) -> NDArray[np.int64]:
    """The first `count` numbers of `torch.randperm(size)`, without keeping the others.

    torch shuffles from the front, so the first `count` draws are enough. If `size` is at least 2³²/20, torch
    uses an inside-out shuffle: draw i is the position of number i, and the number at that position moves to
    position i. This needs all draws.
    """
    import numpy as np

    source = np.random.RandomState(seed)
    if size < (2**32 - 1) // 20:
        moved: dict[int, int] = {}
        found = np.empty(count, np.int64)
        for place, drawn in enumerate(np.frombuffer(source.bytes(4 * count), "<u4").tolist()):
            other = place + drawn % (size - place)
            found[place] = moved.get(other, other)
            moved[other] = moved.get(place, place)
        return found
    found = np.arange(count)
    for first in range(0, size, _DRAWN):
        numbers = np.arange(first, min(first + _DRAWN, size), dtype=np.uint64)
        words = np.frombuffer(source.bytes(8 * len(numbers)), "<u4").astype(np.uint64)
        places = (words[::2] << np.uint64(32) | words[1::2]) % (numbers + np.uint64(1))
        for index in np.flatnonzero(places < count).tolist():
            place, number = int(places[index]), first + index
            if number < count:
                found[number] = found[place]
            found[place] = number
    return found


def matrix_sides(parts: ModuleTensors, shape: tuple[int, ...]) -> tuple[int, int]:
    """(outputs, inputs) of a matrix stored in `shape`."""
    return (shape[1], shape[0]) if parts.orientation == "conv1d" else (shape[0], shape[1])
