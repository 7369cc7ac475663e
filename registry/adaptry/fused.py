"""Fused experts on a base that stores its experts one by one: which rows of the one are which tensor of the other.

transformers 5 holds all experts of a layer as one parameter, and reads and writes files in which each is by itself.
An adapter of the parameter therefore changes many tensors on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from adaptry.loading import Loaded

# The fused parameter, and how files name the parts of one expert: its rows, in this order.
_FUSED = (
    ("gate_up_proj", ("gate_proj", "up_proj")),
    ("gate_up_proj", ("w1", "w3")),
    ("down_proj", ("down_proj",)),
    ("down_proj", ("w2",)),
)


@dataclass(frozen=True, slots=True)
class Expert:
    """One expert's share of fused factors: the `index`th of `count`.

    `parameter` is the fused one in the model's memory; `rows` the rows of the expert's matrix in it that a tensor is.
    """

    parameter: str
    index: int
    count: int
    rows: tuple[int, int]


def expert_tensors(
    path: str, folder: str, sides: tuple[int, int], tensors: Mapping[str, Loaded]
) -> Iterator[tuple[str, Expert]]:
    """Each tensor under `folder` that is part of a parameter of `path` whose matrices have these `sides`.

    None where the shapes of the first expert do not add up to `sides`, or another expert's differ from them.
    """
    for parameter, parts in _FUSED:
        names = [f"{folder}.0.{part}.weight" for part in parts]
        if not all(name in tensors for name in names):
            continue
        heights = [tensors[name].shape[0] for name in names]
        if (sum(heights), tensors[names[0]].shape[-1]) != sides:
            continue
        count = 1
        while f"{folder}.{count}.{parts[0]}.weight" in tensors:
            count += 1
        found = [
            (f"{folder}.{index}.{part}.weight", index, (sum(heights[:place]), sum(heights[: place + 1])))
            for index in range(count)
            for place, part in enumerate(parts)
        ]
        if all(
            name in tensors and tensors[name].shape == (end - first, sides[1])
            for name, _, (first, end) in found
        ):
            for name, index, rows in found:
                yield name, Expert(f"{path}.{parameter}", index, count, rows)
        return
