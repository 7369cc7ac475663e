"""Fused experts on a base that stores experts singly: which rows of one are which tensor of the other.

transformers 5 holds all experts of a layer as one parameter, and reads and writes files in which each is by
itself. An adapter of the parameter therefore changes many tensors on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from adaptry.adapters.transformers_loading import LoadedTensor

# The fused parameter, and how files name the parts of one expert: its rows, in this order.
_FUSED = (
    ("gate_up_proj", ("gate_proj", "up_proj")),
    ("gate_up_proj", ("w1", "w3")),
    ("down_proj", ("down_proj",)),
    ("down_proj", ("w2",)),
    ("up_proj", ("up_proj",)),  # of experts without a gate
)


@dataclass(frozen=True, slots=True)
class FusedExpert:
    """One expert's share of fused factors: the `index`th of `count`.

    `parameter` is the fused one in the model's memory; `rows` the rows of the expert's matrix in it that a
    tensor is.
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
    """Each tensor under `folder` that is part of the `parameter` of `path`, with matrices of these `sides`.

    Without `parameter` the sides must tell. None where the shapes of the first expert do not add up to
    `sides`, where another expert's differ from them, or where two parameters could be meant.
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
    """(rows, columns) of the first expert's parts, one above the other; None where one is not there."""
    names = [f"{folder}.0.{part}.weight" for part in parts]
    is_half = parts == ("up_proj",) and f"{folder}.0.gate_proj.weight" in tensors
    if is_half or not all(name in tensors for name in names):
        return None
    return sum(tensors[name].shape[0] for name in names), tensors[names[0]].shape[-1]
