"""Where the bytes of a tensor come from and go to: a file that is written, or one that is compared with."""

from __future__ import annotations

from typing import Protocol


class ShardReader(Protocol):
    """The base's files."""

    def read(self, shard: str, into: memoryview, at: int) -> None:
        """Fills `into` from a position of the file `shard`. Raises `InvalidWeights` if it is too short."""


class TensorSink(ShardReader, Protocol):
    """Used by one thread at a time for one tensor."""

    def write(self, data: memoryview | bytes, at: int) -> None:
        """Takes bytes of the result, in order, whose first has the position `at` in the result's file."""
