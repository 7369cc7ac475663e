"""Sources and sinks of a tensor's bytes: a file that is written, or one that is compared."""

from __future__ import annotations

from typing import Protocol


class ShardReader(Protocol):
    """Reads the base's files."""

    def read(self, shard: str, into: memoryview, at: int) -> None:
        """Fills `into` from a position of the file `shard`. Raises `InvalidWeights` if it is too short."""


class TensorSink(ShardReader, Protocol):
    """A sink for one tensor, used by one thread at a time."""

    def write(self, data: memoryview | bytes, at: int) -> None:
        """Takes bytes of the result, in order; the first has the position `at` in the result's file."""
