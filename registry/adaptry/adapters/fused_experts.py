"""Fused experts on a base that stores each expert separately: which rows correspond to which tensor.

transformers 5 holds all experts of a layer in one parameter, but reads and writes files in which each expert
is separate. An adapter of that parameter therefore changes many tensors on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from adaptry.adapters.transformers_conversion import LoadedTensor
from adaptry.core.lazy_dataclass import dataclass

# The fused parameter, and the names that files give to the parts of one expert. Its rows are in this order.
_FUSED = (
    ("gate_up_proj", ("gate_proj", "up_proj")),
    ("gate_up_proj", ("w1", "w3")),
    ("down_proj", ("down_proj",)),
    ("down_proj", ("w2",)),
    ("up_proj", ("up_proj",)),  # experts without a gate
)


@dataclass(frozen=True, slots=True)
class FusedExpert:
    """One expert's share of the fused factors, number `index` of `count`.

    `parameter` is the fused parameter in memory. `rows` are the rows of the expert's matrix that a tensor on
    disk holds.
    """

    parameter: str
    index: int
    count: int
    rows: tuple[int, int]


def expert_tensors(
    path: str,
    folder: str,
    sides: tuple[int, int],
    tensors: Mapping[str, LoadedTensor],
    parameter: str | None = None,
) -> Iterator[tuple[str, FusedExpert]]:
    """The tensors under `folder` that form the `parameter` of `path`, whose matrices have these `sides`.

    Without `parameter`, the sides identify it. Returns None if the shapes of the first expert do not add up
    to `sides`, if another expert has other shapes, or if two parameters are possible.
    """
    candidates = [
        (name, parts)
        for name, parts in _FUSED
        if parameter in (None, name) and _sides(folder, parts, tensors) == sides
    ]
    if len(candidates) != 1:
        return
    ((name, parts),) = candidates
    heights = [tensors[f"{folder}.0.{part}.weight"].shape[0] for part in parts]
    count = 1
    while f"{folder}.{count}.{parts[0]}.weight" in tensors:
        count += 1
    found = [
        (f"{folder}.{index}.{part}.weight", index, (sum(heights[:place]), sum(heights[: place + 1])))
        for index in range(count)
        for place, part in enumerate(parts)
    ]
    if all(
        tensor in tensors and tensors[tensor].shape == (end - first, sides[1])
        for tensor, _, (first, end) in found
    ):
        for tensor, index, rows in found:
            yield tensor, FusedExpert(f"{path}.{name}", index, count, rows)


def _sides(folder: str, parts: Sequence[str], tensors: Mapping[str, LoadedTensor]) -> tuple[int, int] | None:
    """(rows, columns) of the first expert's parts, stacked vertically; None if one is missing."""
    names = [f"{folder}.0.{part}.weight" for part in parts]
    is_half = parts == ("up_proj",) and f"{folder}.0.gate_proj.weight" in tensors
    if is_half or not all(name in tensors for name in names):
        return None
    return sum(tensors[name].shape[0] for name in names), tensors[names[0]].shape[-1]
