"""Tensors that can only be computed as a whole: each is computed once, into an unnamed file, and read from
there.

So a slow reader occupies disk and not memory, and small range requests do not compute the tensor again.
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from adaptry.adapters.content import CHUNK
from adaptry.compute.merging.dense_change import merge_dense_tensor
from adaptry.compute.merging.io import ShardReader
from adaptry.compute.merging.layout import OutputTensor
from adaptry.compute.merging.value_tally import ValueTally
from adaptry.core.files.durable import write_error

_CACHE_SIZE = 2  # per checkpoint; a tensor that is being read is kept until its readers are done
_COMPUTING = threading.Semaphore(2)  # computing a tensor needs a few times its size in memory


class TensorSpool:
    """The spooled files of one checkpoint, for many threads. Files are in `folder`, without a name."""

    def __init__(
        self, base: ShardReader, folder: Path, on_made: Callable[[ValueTally], None] = lambda tally: None
    ) -> None:
        """`on_made` is called with each tensor's tally before the tensor is read. `read` passes on the errors
        that it raises."""
        self._base = base
        self._on_made = on_made
        self._folder = folder
        self._made: OrderedDict[str, _SpooledTensor] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, tensor: OutputTensor, first: int, last: int) -> Iterator[bytes]:
        """Bytes [first, last) of the tensor. Raises `InvalidWeights`, `StorageFull`."""
        made = self._of(tensor)
        while first < last:
            data = os.pread(made.file.fileno(), min(CHUNK, last - first), first)
            yield data
            first += len(data)

    def _of(self, tensor: OutputTensor) -> _SpooledTensor:
        with self._lock:
            made = self._made.setdefault(tensor.name, _SpooledTensor())
            self._made.move_to_end(tensor.name)
            while len(self._made) > _CACHE_SIZE:
                self._made.popitem(last=False)
        with made.lock:
            if made.is_empty:
                with _COMPUTING:
                    made.fill(tensor, self._base, self._folder, self._on_made)
        return made


class _SpooledTensor:
    """One tensor, for as long as a reference to it is kept."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_empty = True
        self.file: io.FileIO

    def fill(
        self,
        tensor: OutputTensor,
        base: ShardReader,
        folder: Path,
        on_made: Callable[[ValueTally], None],
    ) -> None:
        tally = ValueTally(tensor)
        try:
            # The file is closed with its last reader.
            self.file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
            weakref.finalize(self, self.file.close)
            merge_dense_tensor(tensor, _FileSink(self.file, base, tensor.offset), tally)
        except OSError as error:
            raise write_error(error, folder) from error
        on_made(tally)
        self.is_empty = False


class _FileSink:
    """A sink whose file has this tensor only, so positions count from the tensor's start."""

    def __init__(self, file: io.FileIO, base: ShardReader, offset: int) -> None:
        self._file = file
        self._base = base
        self._offset = offset

    def read(self, shard: str, into: memoryview, at: int) -> None:
        self._base.read(shard, into, at)

    def write(self, data: memoryview | bytes, at: int) -> None:
        view, at = memoryview(data), at - self._offset
        while view:
            written = os.pwrite(self._file.fileno(), view[:CHUNK], at)
            view, at = view[written:], at + written
