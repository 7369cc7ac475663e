"""Top-k of a few numbers without torch: the same positions as `torch.topk`, even among equal numbers.

torch calls C++'s `partial_sort` if k is at most a 64th of the numbers, else `nth_element`. C++ does not
specify the order of equal numbers. So rows with equal numbers are sorted by the algorithms of libstdc++
(`bits/stl_heap.h`, `bits/stl_algo.h`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from adaptry.adapters.methods.row_formula import Floats

    Positions = NDArray[np.int64]

_SHARE = 64
_SORTED_BY_INSERTION = 16


def is_order_known(count: int, selected: int) -> bool:
    """Whether `top_k` can reproduce the order in which torch selects."""
    return 0 < selected <= min(count, _SORTED_BY_INSERTION)


def top_k(numbers: Floats, selected: int) -> Positions:
    """The positions of the `selected` largest numbers in the last dimension, largest first. No number may be
    NaN.
    """
    import numpy as np

    order = np.argsort(-numbers, axis=-1, kind="stable")[..., : selected + 1]
    highest = np.take_along_axis(numbers, order, -1)
    chosen = order[..., :selected].copy()
    is_tied = (highest[..., 1:] == highest[..., :-1]).any(axis=-1)
    for place in np.argwhere(is_tied):
        row = numbers[tuple(place)].tolist()
        is_heap_used = selected * _SHARE <= len(row)
        chosen[tuple(place)] = (_selected_by_heap if is_heap_used else _selected_by_parts)(row, selected)
    return chosen


def _selected_by_parts(numbers: list[float], selected: int) -> list[int]:
    """`nth_element` on the positions, by descending numbers, then a stable sort of those before the last one.

    Where libstdc++ would give up partitioning and use a heap, equal numbers are selected by position.
    """
    order, nth = list(range(len(numbers))), selected - 1
    first, last, depth = 0, len(order), 2 * (len(order).bit_length() - 1)
    while last - first > 3 and depth:
        depth -= 1
        cut = _partitioned(numbers, order, first, last)
        first, last = (cut, last) if cut <= nth else (first, cut)
    order[first:last] = sorted(order[first:last], key=lambda place: -numbers[place])
    return sorted(order[:nth], key=lambda place: -numbers[place]) + order[nth:selected]


def _partitioned(numbers: list[float], order: list[int], first: int, last: int) -> int:
    """`__unguarded_partition_pivot`: moves the median of three to `first`; returns the start of the rest."""

    def is_before(one: int, other: int) -> bool:
        return numbers[order[one]] > numbers[order[other]]

    low, middle, high = first + 1, first + (last - first) // 2, last - 1
    if is_before(low, middle):
        median = middle if is_before(middle, high) else high if is_before(low, high) else low
    else:
        median = low if is_before(low, high) else high if is_before(middle, high) else middle
    order[first], order[median] = order[median], order[first]
    pivot, left, right = first, first + 1, last
    while True:
        while is_before(left, pivot):
            left += 1
        right -= 1
        while is_before(pivot, right):
            right -= 1
        if left >= right:
            return left
        order[left], order[right] = order[right], order[left]
        left += 1


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
