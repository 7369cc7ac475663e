"""The pass over a checkpoint: computes each tensor like a merge, and compares instead of writing.

Equal means the same bits that `adaptry merge` writes, in the checkpoint's dtype. Each thread has a few rows
of a weight in memory. Tensors that differ are then examined again, one at a time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from adaptry.adapters.header import DTYPE_BITS, PLAIN_FLOATS
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.shards import Shards
from adaptry.compute.merge_verification.configs import config_differences, facts_of_merge
from adaptry.compute.merge_verification.diagnosis import diagnose
from adaptry.compute.merge_verification.tensor_pairs import TensorPair, pair_tensors
from adaptry.compute.merge_verification.ulp_diff import UlpDiff
from adaptry.compute.merge_verification.verdict import TensorState, TensorVerdict, Verification
from adaptry.compute.merging.execute import merge_tensor
from adaptry.compute.merging.kernels import KernelChoice, ThreadKernels, choose_kernels, compute_on_one_thread
from adaptry.compute.merging.plan import MergePlan
from adaptry.core.progress import Progress, no_progress

_RUN = 1 << 20  # bytes compared at a time


def verify(
    plan: MergePlan,
    checkpoint: HfCheckpoint,
    *,
    tolerance: int = 1,
    is_measuring: bool = False,
    kernels: KernelChoice | None = None,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> Verification:
    """Whether `checkpoint` equals the result of `plan`, except for names, files and dtypes.

    `tolerance`: allowed difference of a computed element, in units in the last place of its dtype.
    `is_measuring`: also compute the errors of adapted tensors that are within it. Raises `MissingDependency`
    (torch is needed and missing), `InvalidWeights` (a file that is truncated while it is read).
    """
    facts = fingerprint(checkpoint).facts
    expected = facts_of_merge(plan)
    pairs = pair_tensors(plan, expected, checkpoint, facts)
    fitting = [recast for pair in pairs.pairs if (recast := _recast(pair)) is not None]
    kernels = kernels or choose_kernels()
    kernels.check(pair.expected for pair in fitting if not pair.expected.is_copy)
    labels = {id(entry.adapter): entry.label for entry in plan.inputs}
    with Shards(plan.checkpoint) as base, Shards(checkpoint) as found:
        tallies = _SharedTensors(base, found, kernels, progress).run(fitting, threads)
        verdicts = [
            _verdict(pair, tally, tolerance, is_measuring, base, found, labels)
            for pair, tally in zip(fitting, tallies, strict=True)
        ]
    verdicts += [_misshapen(pair) for pair in pairs.pairs if _recast(pair) is None]
    verdicts += [TensorVerdict(tensor=name, state="missing") for name in pairs.missing]
    verdicts += [TensorVerdict(tensor=name, state="extra") for name in pairs.extra]
    return Verification(
        tensors=tuple(verdicts),
        config=config_differences(expected, facts),
        notes=plan.notes,
        tolerance=tolerance,
    )


def _recast(pair: TensorPair) -> TensorPair | None:
    """The pair, with its expected tensor in the found dtype if possible; None if they cannot be compared."""
    tensor, info = pair.expected, pair.location.info
    if info.shape != tensor.shape:
        return None
    if info.dtype == tensor.dtype:
        return pair
    if {info.dtype, tensor.dtype} <= PLAIN_FLOATS:
        return replace(pair, expected=replace(tensor, dtype=info.dtype))
    return None


def _misshapen(pair: TensorPair) -> TensorVerdict:
    tensor, info = pair.expected, pair.location.info
    hint = f"it is {info.dtype} {list(info.shape)}, but should be {tensor.dtype} {list(tensor.shape)}"
    return TensorVerdict(tensor=pair.tensor, state="shape", hint=hint)


def _verdict(
    pair: TensorPair,
    tally: UlpDiff,
    tolerance: int,
    is_measuring: bool,
    base: Shards,
    found: Shards,
    labels: dict[int, str],
) -> TensorVerdict:
    allowed = 0 if pair.expected.is_copy else tolerance  # copied tensors are never rounded
    is_within = tally.ulp is not None and tally.ulp <= allowed
    state: TensorState = "same" if not tally.differing else "within" if is_within else "differs"
    counted = TensorVerdict(tensor=pair.tensor, state=state, ulp=tally.ulp, share=tally.share)
    if state == "differs" or (is_measuring and pair.expected.is_adapted):
        return diagnose(pair, counted, allowed, base, found, labels)
    return counted


class _SharedTensors:
    """The tensors to verify, which threads share; each thread has its own kernels."""

    def __init__(self, base: Shards, found: Shards, kernels: KernelChoice, progress: Progress) -> None:
        self._base = base
        self._found = found
        self._kernels = kernels
        self._progress = progress
        self._own = threading.local()
        self._lock = threading.Lock()
        self._done = 0

    def run(self, pairs: list[TensorPair], threads: int | None) -> list[UlpDiff]:
        """A tally for each pair."""
        changed = [pair.expected for pair in pairs if not pair.expected.is_copy]
        total = sum(pair.expected.size for pair in pairs)

        def compare(pair: TensorPair) -> UlpDiff:
            kernels = getattr(self._own, "kernels", None)
            if kernels is None:
                kernels = self._own.kernels = self._kernels.for_thread(changed)
            tally = self._compare(pair, kernels)
            with self._lock:
                self._done += pair.expected.size
                self._progress("comparing", self._done, total)
            return tally

        with (
            self._kernels.limit_threads(changed),
            ThreadPoolExecutor(
                threads or os.cpu_count() or 1,
                initializer=compute_on_one_thread,
                initargs=(self._kernels.names_for(changed),),
            ) as pool,
        ):
            return list(pool.map(compare, pairs))

    def _compare(self, pair: TensorPair, kernels: ThreadKernels) -> UlpDiff:
        sink = _ComparingSink(pair, self._base, self._found)
        tensor = pair.expected
        if tensor.is_copy:
            position = tensor.offset
            for chunk in self._base.chunks(tensor.shard, tensor.source):
                sink.write(chunk, position)
                position += len(chunk)
        else:
            merge_tensor(tensor, sink, kernels, self._kernels.block)
        return sink.tally


class _ComparingSink:
    """A sink for `merge_tensor` that stores nothing, and compares each run with the found bytes."""

    def __init__(self, pair: TensorPair, base: Shards, found: Shards) -> None:
        self.tally = UlpDiff(pair.expected.dtype)
        self._pair = pair
        self._base = base
        self._found = found
        self._width = DTYPE_BITS[pair.expected.dtype] // 8
        self._buffer = memoryview(bytearray(_RUN))

    def read(self, shard: str, into: memoryview, at: int) -> None:
        self._base.read(shard, into, at)

    def write(self, data: memoryview | bytes, at: int) -> None:
        place = self._pair.location
        position = place.info.start + at - self._pair.expected.offset
        for part in _runs(memoryview(data).cast("B")):
            there = self._buffer[: len(part)]
            self._found.read(place.shard, there, position)
            self.tally.add(there, part, self._width)
            position += len(part)


def _runs(data: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(data), _RUN):
        yield data[start : start + _RUN]
