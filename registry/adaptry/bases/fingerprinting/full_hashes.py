"""Reads a whole base once and hashes it on all cores.

A shard is read from its beginning to its end, in pieces that stay in a core's cache, and each piece is hashed
for the file and for its tensors at the same time (`core.sha256_streams`). If there are fewer shards than
threads, tensors are read separately from the files, so that all threads have work. After a few MiB, a thread
returns its range and continues with the one that has the most bytes left, so that all threads finish
together.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import chain

from adaptry.adapters.base_record import BaseRecord, Roots, TensorShape
from adaptry.adapters.header import FLOATS
from adaptry.adapters.tensor_names import normalised
from adaptry.bases.fingerprinting.shard_range import PIECE, RangeTensor, ShardRange
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.quantised import open_logical_view
from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.sha256_streams import is_worth_compiling, update_together

_CHUNK = 8 << 20  # bytes of a range that a thread reads before it looks for another
_GROUP = 16 << 20  # bytes of small tensors that form a range
_REPORTED = 16 << 20


@dataclass(frozen=True, slots=True)
class BaseHashes:
    """The result of a full reading: the digests over all weights, and the SHA-256 of each file."""

    roots: Roots
    files: Mapping[str, Digest]


def full_hashes(
    checkpoint: HfCheckpoint, record: BaseRecord, files: bool = True, progress: Progress = no_progress
) -> BaseHashes:
    """Computes digests over the weights in `record`, and of the files on request. Reads every byte.

    `canon` is None if converting a weight to bfloat16 needs numpy and numpy is not installed. Raises
    `InvalidWeights` if a file is truncated during the reading.
    """
    stored = _stored(checkpoint, record)
    threads = os.cpu_count() or 1
    ranges = _ranges(checkpoint, stored, files, threads)
    exact: dict[str, str] = {}
    canon: dict[str, str | None] = {}
    whole: dict[str, Digest] = {}
    with ExitStack() as opened:
        for each in ranges:
            opened.enter_context(closing(each))
        _HashRun(ranges, progress).run(threads)
        for each in ranges:
            found = each.digests()
            exact |= found.exact
            canon |= found.canon
            if found.file is not None:
                whole[each.shard] = Digest(found.file)
    return BaseHashes(_roots(stored, exact, canon), dict(sorted(whole.items())))


def _stored(checkpoint: HfCheckpoint, record: BaseRecord) -> dict[str, TensorShape]:
    """The tensors on disk that make up the record's tensors; for a quantised weight, all its packed
    tensors.
    """
    packed = open_logical_view(checkpoint).packed
    stored = {name: tensor for name, tensor in record.tensors.items() if name not in packed}
    for part in (part for weight in packed.values() for part in weight.parts.values()):
        stored[part.name] = TensorShape(dtype=part.info.dtype, shape=part.info.shape)
    return stored


def _ranges(
    checkpoint: HfCheckpoint, stored: Mapping[str, TensorShape], files: bool, threads: int
) -> list[ShardRange]:
    """The ranges to hash, starting with those of the largest shard."""
    sizes = {shard: (checkpoint.folder / shard).stat().st_size for shard in checkpoint.shards}
    tensors = {shard: _tensors(checkpoint, shard, stored) for shard in sizes}
    weights = sum(tensor.end - tensor.start for tensor in chain.from_iterable(tensors.values()))
    is_joint = files and len(sizes) >= threads
    is_interleaved = is_joint and is_worth_compiling(weights + sum(sizes.values()))

    def range_of(
        shard: str, span: tuple[int, int], within: Sequence[RangeTensor], is_file: bool
    ) -> ShardRange:
        return ShardRange(
            checkpoint.folder, shard, span, within, is_file=is_file, is_interleaved=is_interleaved
        )

    shards = sorted(sizes, key=lambda name: (-sizes[name], name))
    found: list[ShardRange] = []
    if files:
        found += [
            range_of(name, (0, sizes[name]), tensors[name] if is_joint else (), True) for name in shards
        ]
    if not is_joint:
        for shard in shards:
            for group in _groups(tensors[shard]):
                found.append(range_of(shard, (group[0].start, group[-1].end), group, False))
    return found


def _tensors(checkpoint: HfCheckpoint, shard: str, stored: Mapping[str, TensorShape]) -> list[RangeTensor]:
    infos = checkpoint.shards[shard].tensors
    found = (
        RangeTensor(name, info.dtype, info.start, info.end) for name, info in infos.items() if name in stored
    )
    return sorted(found, key=lambda tensor: (tensor.start, tensor.end))


def _groups(tensors: Sequence[RangeTensor]) -> Iterator[list[RangeTensor]]:
    """Groups of adjacent tensors, each of a few MiB."""
    group: list[RangeTensor] = []
    for tensor in tensors:
        if group and (group[-1].end != tensor.start or tensor.end - group[0].start > _GROUP):
            yield group
            group = []
        group.append(tensor)
    if group:
        yield group


def _roots(
    stored: Mapping[str, TensorShape], exact: Mapping[str, str], canon: Mapping[str, str | None]
) -> Roots:
    """Digests of the lines `name, dtype, shape, digest`, sorted; in `canon`, every float is a BF16."""
    plain = normalised(stored)
    lines: list[str] = []
    rounded: list[str] = []
    for name in sorted(stored, key=lambda name: plain[name]):
        tensor = stored[name]
        shape = list(tensor.shape)
        lines.append(f"{plain[name]}\t{tensor.dtype}\t{shape}\t{exact[name]}\n")
        dtype = "BF16" if tensor.dtype in FLOATS else tensor.dtype
        rounded.append(f"{plain[name]}\t{dtype}\t{shape}\t{canon[name]}\n")
    has_all = all(digest is not None for digest in canon.values())
    return Roots(
        exact=Digest.of("".join(lines).encode()),
        canon=Digest.of("".join(rounded).encode()) if has_all else None,
    )


class _HashRun:
    """Ranges that several threads hash; the first error stops all threads."""

    def __init__(self, ranges: Sequence[ShardRange], progress: Progress) -> None:
        self._left = [each for each in ranges if each.left]
        self._busy: set[ShardRange] = set()
        self._is_stopped = False
        self._changed = threading.Condition()
        self._progress = progress
        self._total = sum(
            each.left * each.is_file + sum(tensor.end - tensor.start for tensor in each.tensors)
            for each in ranges
        )
        self._done = self._reported = 0

    def run(self, threads: int) -> None:
        """Hashes everything. Raises the errors of reading."""
        self._progress("hashing", 0, self._total)
        with ThreadPoolExecutor(threads) as pool:
            working = [pool.submit(self._work, 2 * threads) for _ in range(threads)]
            try:
                for each in working:
                    each.result()
            except BaseException:  # including Ctrl-C
                self._stop()
                raise

    def _work(self, ahead: int) -> None:
        try:
            while taken := self._take(ahead):
                for _ in range(0, min(_CHUNK, taken.left), PIECE):
                    self._hash_piece(taken)
                self._return_range(taken)
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _hash_piece(self, taken: ShardRange) -> None:
        hashed, parts = taken.read_piece()
        update_together(parts)
        taken.end_piece()
        with self._changed:
            self._done += hashed
            if self._done - self._reported >= _REPORTED or self._done == self._total:
                self._reported = self._done
                self._progress(f"hashing {taken.shard}", self._done, self._total)

    def _take(self, ahead: int) -> ShardRange | None:
        """The range with the most bytes left among the next `ahead` ones; None at the end."""
        with self._changed:
            while self._left and not self._is_stopped:
                free = [each for each in self._left[:ahead] if each not in self._busy]
                if free:
                    taken = max(free, key=lambda each: each.left)
                    self._busy.add(taken)
                    return taken
                self._changed.wait()
            return None

    def _return_range(self, taken: ShardRange) -> None:
        with self._changed:
            self._busy.remove(taken)
            self._left = [each for each in self._left if each.left]
            self._changed.notify_all()
