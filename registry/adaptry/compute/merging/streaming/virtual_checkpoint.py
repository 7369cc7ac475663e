"""A merged checkpoint as virtual files that can be read at any position.

Names, sizes and headers are known from the plan, before a weight is read. Reading a range computes the blocks
of rows that overlap it. The blocks have the same boundaries as in a merge, so the bytes are those that
`adaptry merge` writes with the same kernels. Each reader needs the memory of a few blocks. A tensor that can
only be computed as a whole is computed once and kept on disk (`spool`).
"""

from __future__ import annotations

import bisect
import hashlib
import weakref
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from adaptry.adapters.content import CHUNK, FolderContent
from adaptry.bases.shards import Shards
from adaptry.compute.merging.execute import read_again
from adaptry.compute.merging.kernels import KernelChoice, ThreadKernels, row_layout
from adaptry.compute.merging.layout import OutputFile, OutputTensor
from adaptry.compute.merging.model_files import copied_files, generated_files
from adaptry.compute.merging.output import WriteOp, plan_writes
from adaptry.compute.merging.plan import MergePlan
from adaptry.compute.merging.streaming.identity import (
    arithmetic_versions,
    file_tag,
    layout_digest,
    model_identity,
)
from adaptry.compute.merging.streaming.spool import TensorSpool
from adaptry.compute.merging.value_tally import ValueTally, require_finite
from adaptry.compute.tensors.kernel import row_blocks
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, NotFound
from adaptry.core.lazy_dataclass import dataclass

_PART = 256 << 10


@dataclass(frozen=True, slots=True)
class SideFile:
    """A file other than weights: its size, its SHA-256, and git's blob id of its bytes."""

    size: int
    sha256: Digest
    blob_id: str


class VirtualCheckpoint:
    """The files that a plan would write, readable from many threads.

    The base's files stay open during its lifetime. `sizes` has the size of every file by name; `side_files`
    has the files other than weights. `tags` identifies the bytes of each weights file before they are
    computed. `identity` identifies all files: equal only if every byte is equal. `computed_by` has the
    versions of the computing libraries. `changed` has the tensors whose values differ from the base's, as far
    as they have been read.
    """

    def __init__(
        self,
        plan: MergePlan,
        kernels: KernelChoice,
        adapter: Digest,
        made: Mapping[str, bytes],
        scratch: Path,
    ) -> None:
        """`adapter`: the digest of the merged revision; `made`: additional files; `scratch`: a work folder.

        Raises `MissingDependency` or `Invalid` if a tensor needs a kernel that is not available, and the
        errors of opening files.
        """
        kernels.check(plan.changed_tensors)
        self.plan = plan
        self._kernels = kernels
        self._shards = Shards(plan.checkpoint)
        weakref.finalize(self, self._shards.__exit__)
        self._states = self._shards.states()
        self._kept = FolderContent(plan.checkpoint.folder, [path.name for path in copied_files(plan)])
        self._made = {**generated_files(plan), **made}
        self._spool = TensorSpool(self._shards, scratch, self._note_complete)
        self._refusal: CheckFailed | None = None
        self.tallies: dict[str, ValueTally] = {}
        """Of the tensors that were computed completely, by name."""
        self._streamed = [tensor for tensor in plan.changed_tensors if kernels.is_streamed(tensor)]
        self._files = {file.name: _Steps(file) for file in plan.files}
        self.side_files = {name: self._described(name) for name in sorted({*self._kept.sizes, *self._made})}
        weights = {file.name: file.size for file in plan.files}
        self.sizes = {**weights, **{name: file.size for name, file in self.side_files.items()}}
        self.computed_by = arithmetic_versions(plan, kernels)
        named = layout_digest(plan, adapter, self.computed_by)
        self.tags = {name: file_tag(named, name) for name in weights}
        self.identity = model_identity(named, {name: file.sha256 for name, file in self.side_files.items()})

    @property
    def is_current(self) -> bool:
        """Whether the base's files are unchanged since this was opened."""
        return self._shards.states() == self._states

    def read(self, name: str, start: int, end: int) -> Iterator[bytes | memoryview]:
        """The bytes [start, end) of a file, in order; each chunk is valid until the next one.

        Raises `NotFound`, `InvalidWeights` (a file of the base that became shorter, a change that does not
        fit its tensor), `CheckFailed` (a value became infinite or NaN; every later read of weights then fails
        before its first byte) and `StorageFull`.
        """
        if name in self.side_files:
            yield from self._read_side(name, start, end)
            return
        if self._refusal is not None:
            raise CheckFailed(self._refusal.message)
        steps = self._steps(name)
        if start < len(steps.header):
            yield steps.header[start:end]
        kernels: ThreadKernels | None = None
        for step in steps.touching(start, end):
            first, last = max(start - step.offset, 0), min(end - step.offset, step.size)
            if step.tensor is None:
                yield from self._copied(step.shard, step.source + first, step.source + last)
            elif not self._kernels.is_streamed(step.tensor):
                yield from self._spool.read(step.tensor, first, last)
            else:
                kernels = kernels or self._kernels.for_thread(self._streamed)
                yield from self._merged(step.tensor, kernels, first, last)

    def _steps(self, name: str) -> _Steps:
        try:
            return self._files[name]
        except KeyError:
            raise NotFound(f"the merged model has no file {name[:80]!a}") from None

    def _copied(self, shard: str, at: int, end: int) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(_PART, end - at)))
        while at < end:
            part = buffer[: end - at]
            self._shards.read(shard, part, at)
            yield part
            at += len(part)

    def _merged(
        self, tensor: OutputTensor, kernels: ThreadKernels, first: int, last: int
    ) -> Iterator[memoryview]:
        """Bytes [first, last) of a streamed tensor: complete blocks are merged, and then cut to the range."""
        rows, row_bytes = row_layout(tensor)
        row_out = row_bytes * tensor.size // tensor.source.size
        kernel = kernels.begin_kernel(tensor, self._shards)
        tally = ValueTally(tensor)
        for row, count in row_blocks(rows, row_bytes, self._kernels.block):
            begin, end = row * row_out, (row + count) * row_out
            if end <= first:
                continue
            if begin >= last:
                return
            at, size = tensor.source.start + row * row_bytes, count * row_bytes
            self._shards.read(tensor.shard, kernel.source[:size], at)
            merged = kernel.merge_rows(row, count)
            again = partial(read_again, self._shards, tensor.shard, at, size)
            tally.add(merged, again, tensor.source.dtype, kernel.tally())
            self._note(tally)
            yield merged[max(0, first - begin) : min(end, last) - begin]
        if first == 0:
            self._note_complete(tally)

    def _note_complete(self, tally: ValueTally) -> None:
        self._note(tally)
        self.tallies[tally.tensor.name] = tally

    def _note(self, tally: ValueTally) -> None:
        """Records the values' tally. Raises `CheckFailed` if values became infinite or NaN, and from then on
        for every read.
        """
        tensor = tally.tensor
        try:
            require_finite({tensor.name: tally.non_finite}, tensor.dtype)
        except CheckFailed as error:
            self._refusal = error
            raise

    def _read_side(self, name: str, start: int, end: int) -> Iterator[bytes]:
        if name in self._made:
            yield self._made[name][start:end]
            return
        while start < end and (data := self._kept.read(name, start, min(CHUNK, end - start))):
            yield data
            start += len(data)

    def _described(self, name: str) -> SideFile:
        size = len(self._made[name]) if name in self._made else self._kept.sizes[name]
        sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        for data in self._read_side(name, 0, size):
            sha256.update(data)
            blob.update(data)
        return SideFile(size, Digest(sha256.hexdigest()), blob.hexdigest())


class _Steps:
    """A weights file: its header, then steps in order."""

    def __init__(self, file: OutputFile) -> None:
        self.header = file.header
        self._steps = [step for step in plan_writes(file) if step.size]
        self._ends = [step.offset + step.size for step in self._steps]

    def touching(self, start: int, end: int) -> Iterator[WriteOp]:
        """The steps whose bytes overlap [start, end)."""
        for number in range(bisect.bisect_right(self._ends, start), len(self._steps)):
            if self._steps[number].offset >= end:
                return
            yield self._steps[number]
