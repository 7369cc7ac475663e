"""Executes a plan in one streaming pass over the base, in memory that does not grow with the model.

Each output file is a queue of steps: ranges to copy, weights to merge block by block. Threads always continue
with the file that has the most work left. A hashed file belongs to one thread during a step, so its bytes are
hashed in order while they are in cache; with fewer files than threads, a separate thread computes the hash.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from adaptry.compute.merging.dense_change import merge_dense_tensor
from adaptry.compute.merging.io import ShardReader, TensorSink
from adaptry.compute.merging.kernels import KernelChoice, ThreadKernels, compute_on_one_thread, row_layout
from adaptry.compute.merging.layout import OutputTensor
from adaptry.compute.merging.output import OutputWriter, WriteOp
from adaptry.compute.merging.plan import MergePlan
from adaptry.compute.merging.rounding_loss import ChangedElements, count_changed
from adaptry.compute.merging.value_tally import ValueTally, require_finite
from adaptry.compute.tensors.kernel import row_blocks
from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress

Tallies = Mapping[str, ValueTally]
"""Tallies by tensor name."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """An output file: its name, its size in bytes, its SHA-256 unless hashing was off, the number of its
    tensors whose values differ from the base's, and the counts of their elements.
    """

    name: str
    size: int
    sha256: Digest | None
    changed: int = 0
    elements: ChangedElements = ChangedElements()


def write_merged_weights(
    plan: MergePlan,
    folder: Path,
    kernels: KernelChoice,
    *,
    hashing: bool = True,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> tuple[WrittenFile, ...]:
    """Writes the plan's weight files into `folder`, which must exist and have none of them.

    Raises `OSError` (such as no space), `InvalidWeights` (a file that is truncated while it is read) and
    `CheckFailed` (values that became infinite or NaN). Files may then be incomplete: the caller fills a
    folder that it publishes by renaming.
    """
    workers = threads or os.cpu_count() or 1
    with contextlib.ExitStack() as opened:
        outputs = [
            opened.enter_context(contextlib.closing(OutputWriter(file, plan.checkpoint, folder, hashing)))
            for file in plan.files
        ]
        if hashing and len(outputs) < workers:
            for output in outputs:
                output.hash_in_background()
            workers = len(outputs)
        tallies = _SharedOutputs(plan, outputs, kernels, hashing, progress).run(workers)
        _require_finite(plan, tallies)
        return tuple(_written(output, tallies) for output in outputs)


def _require_finite(plan: MergePlan, tallies: Tallies) -> None:
    bad = [tensor for tensor in plan.changed_tensors if tallies[tensor.name].non_finite]
    if bad:
        require_finite({tensor.name: tallies[tensor.name].non_finite for tensor in bad}, bad[0].dtype)


def _written(output: OutputWriter, tallies: Tallies) -> WrittenFile:
    file = output.file
    changed = sum(tensor.name in tallies and tallies[tensor.name].is_changed for tensor in file.tensors)
    elements = count_changed(file.tensors, tallies)
    return WrittenFile(file.name, file.size, output.digest(), changed, elements)


class _SharedOutputs:
    """The outputs with remaining steps, shared by all threads; the first error stops all of them."""

    def __init__(
        self,
        plan: MergePlan,
        outputs: Sequence[OutputWriter],
        kernels: KernelChoice,
        in_order: bool,
        progress: Progress,
    ) -> None:
        self._plan = plan
        self._kernels = kernels
        self._in_order = in_order
        self._progress = progress
        self._free = [output for output in outputs if output.steps]
        self._changed = threading.Condition()
        self._busy = 0
        self._done = sum(len(file.header) for file in plan.files)
        self._size = plan.size  # summed over all tensors
        self._error: BaseException | None = None
        self._tallies: dict[str, ValueTally] = {}

    def run(self, workers: int) -> Tallies:
        """Executes all steps; returns the tally of each tensor that is not only copied."""
        changed = self._plan.changed_tensors
        names = self._kernels.names_for(changed)
        with self._kernels.limit_threads(changed):
            threads = [
                threading.Thread(target=self._work, args=(names,), daemon=True) for _ in range(workers)
            ]
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    thread.join()
            except BaseException as error:  # Ctrl-C; threads must stop before files are closed
                self._stop(error)
                for thread in threads:
                    thread.join()
                raise
        if self._error is not None:
            raise self._error
        return self._tallies

    def _work(self, names: Sequence[str]) -> None:
        try:
            compute_on_one_thread(names)
            kernels = self._kernels.for_thread(self._plan.changed_tensors)
            while (taken := self._take()) is not None:
                output, step = taken
                if step.tensor is None:
                    output.copy(step, kernels.buffer)
                else:
                    tally = self._tallies[step.tensor.name] = ValueTally(step.tensor)
                    merge_tensor(step.tensor, output, kernels, self._kernels.block, tally)
                self._return_output(output, step)
        except BaseException as error:  # noqa: BLE001  (raised again in the waiting thread)
            self._stop(error)

    def _stop(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _take(self) -> tuple[OutputWriter, WriteOp] | None:
        """The next step of the file with the most work left; None if there are no more steps."""
        with self._changed:
            while self._error is None:
                if self._free:
                    output = max(self._free, key=lambda output: output.left)
                    step = output.steps.popleft()
                    output.left -= step.size
                    if self._in_order or not output.steps:
                        self._free.remove(output)
                    self._busy += 1
                    return output, step
                if not self._busy:
                    return None
                self._changed.wait()
            return None

    def _return_output(self, output: OutputWriter, step: WriteOp) -> None:
        with self._changed:
            self._busy -= 1
            if self._in_order and output.steps:
                self._free.append(output)
            self._done += step.size
            self._progress("merging", self._done, self._size)
            self._changed.notify_all()


def merge_tensor(
    tensor: OutputTensor,
    sink: TensorSink,
    kernels: ThreadKernels,
    block: int,
    tally: ValueTally | None = None,
) -> None:
    """Streams one weight through a kernel, block by block, or changes it as a whole. `tally` counts changed
    values.
    """
    if not kernels.is_streamed(tensor):
        merge_dense_tensor(tensor, sink, tally)
        return
    rows, row_bytes = row_layout(tensor)
    kernel = kernels.begin_kernel(tensor, sink)
    row_out = row_bytes * tensor.size // tensor.source.size
    for first, count in row_blocks(rows, row_bytes, block):
        begin, size = tensor.source.start + first * row_bytes, count * row_bytes
        sink.read(tensor.shard, kernel.source[:size], begin)
        merged = kernel.merge_rows(first, count)
        if tally is not None:
            again = partial(read_again, sink, tensor.shard, begin, size)
            tally.add(merged, again, tensor.source.dtype, kernel.tally())
        sink.write(merged, tensor.offset + first * row_out)


def read_again(base: ShardReader, shard: str, begin: int, size: int) -> memoryview:
    """Reads bytes of the base again, since a kernel may have merged them in place."""
    data = memoryview(bytearray(size))
    base.read(shard, data, begin)
    return data
