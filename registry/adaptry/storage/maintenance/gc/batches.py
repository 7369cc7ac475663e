"""Splits items into batches of the size for one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

BATCH = 200
Item = TypeVar("Item")


def batches(items: Sequence[Item] | Iterator[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while some := list(islice(rest, BATCH)):
        yield some
