"""Top-k of a few numbers without torch: the same positions as `torch.topk`, also among equal numbers.

torch calls C++'s `partial_sort` if k is at most a 64th of the numbers. C++ does not specify the order of
equal numbers, so this repeats the heap of libstdc++ (`bits/stl_heap.h`) for rows that have some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from adaptry.adapters.methods.row_formula import Floats

    Positions = NDArray[np.int64]

_SHARE = 64


def is_heap_used(count: int, selected: int) -> bool:
    """Whether torch selects in the order that `largest` repeats."""
    return 0 < selected * _SHARE <= count


def largest(numbers: Floats, selected: int) -> Positions:
    """The positions of the `selected` largest in the last dimension, from the largest on. None is NaN."""
    import numpy as np

    order = np.argsort(-numbers, axis=-1, kind="stable")[..., : selected + 1]
    highest = np.take_along_axis(numbers, order, -1)
    chosen = order[..., :selected].copy()
    is_tied = (highest[..., 1:] == highest[..., :-1]).any(axis=-1)
    for place in np.argwhere(is_tied):
        chosen[tuple(place)] = _selected_by_heap(numbers[tuple(place)].tolist(), selected)
    return chosen


def _selected_by_heap(numbers: list[float], selected: int) -> list[int]:
    """`partial_sort` of positions by descending numbers: a heap whose first number is the smallest."""
    heap = list(range(selected))
    for place in reversed(range(selected // 2)):
        _sift(numbers, heap, place, selected, heap[place])
    for candidate in range(selected, len(numbers)):
        if numbers[candidate] > numbers[heap[0]]:
            _sift(numbers, heap, 0, selected, candidate)
    for last in reversed(range(1, selected)):
        moved, heap[last] = heap[last], heap[0]
        _sift(numbers, heap, 0, last, moved)
    return heap


def _sift(numbers: list[float], heap: list[int], hole: int, size: int, value: int) -> None:
    """`__adjust_heap`: moves the hole down to a leaf, then `value` up from there."""
    top, child = hole, hole
    while child < (size - 1) // 2:
        child = 2 * (child + 1)
        if numbers[heap[child]] > numbers[heap[child - 1]]:
            child -= 1
        heap[hole], hole = heap[child], child
    if size % 2 == 0 and child == (size - 2) // 2:
        child = 2 * child + 1
        heap[hole], hole = heap[child], child
    parent = (hole - 1) // 2
    while hole > top and numbers[heap[parent]] > numbers[value]:
        heap[hole], hole = heap[parent], parent
        parent = (hole - 1) // 2
    heap[hole] = value
