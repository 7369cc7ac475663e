"""The files of a checkpoint, opened for reading the bytes of tensors by position, from any thread.

A tensor need not fit into memory: the caller chooses how much to read at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Self

from adaptry.adapters.content import open_file_state, open_regular
from adaptry.adapters.header import TensorInfo
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.core.errors import InvalidWeights

CHUNK = 1 << 20


class Shards:
    """The open files. Use it as a context manager, which closes them at its end."""

    def __init__(self, checkpoint: HfCheckpoint, names: Iterable[str] | None = None) -> None:
        """Opens the files `names`, by default all. Raises `NotFound`, and `Invalid` if one cannot be read."""
        self._folder = checkpoint.folder
        with ExitStack() as opened:
            self._files = {
                name: opened.enter_context(open_regular(checkpoint.folder / name))
                for name in sorted(set(checkpoint.shards if names is None else names))
            }
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._opened.close()

    def read(self, shard: str, into: memoryview, at: int) -> None:
        """Fills `into` from the file. Raises `InvalidWeights` if it has become shorter."""
        done = 0
        while done < len(into):
            count = os.preadv(self._files[shard].fileno(), [into[done:]], at + done)
            if not count:
                raise InvalidWeights(
                    f"{self._folder / shard} became shorter while it was read; is something still writing it?"
                )
            done += count

    def states(self) -> dict[str, tuple[int, int]]:
        """The state of each file (`open_file_state`)."""
        return {name: open_file_state(file) for name, file in self._files.items()}

    def chunks(self, shard: str, info: TensorInfo, size: int = CHUNK) -> Iterator[memoryview]:
        """The bytes of a tensor in order; each chunk is valid until the next."""
        buffer = memoryview(bytearray(min(size, max(1, info.size))))
        for start in range(info.start, info.end, size):
            part = buffer[: min(size, info.end - start)]
            self.read(shard, part, start)
            yield part

    def read_tensor(self, shard: str, info: TensorInfo) -> bytearray:
        """All bytes of a tensor."""
        data = bytearray(info.size)
        view = memoryview(data)
        for start in range(0, info.size, CHUNK):
            self.read(shard, view[start : start + CHUNK], info.start + start)
        return data
