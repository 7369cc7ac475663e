"""Reads a whole base once and hashes it on all cores, at about the speed of SHA-256.

Every weight and every file is a unit of work. Threads take units, largest first within a shard, and read them
into a buffer that stays in a core's cache; hashlib releases the interpreter lock. Hashing mapped pages needs
no copy, but took a quarter longer, since they come from memory. Shards are processed one after another, so
that a file's bytes are still in memory when its tensors are read.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from adaptry.adapters.base_record import BaseRecord, Roots, TensorShape
from adaptry.adapters.content import open_regular
from adaptry.adapters.header import FLOATS
from adaptry.adapters.tensor_names import normalised
from adaptry.bases.fingerprinting.bfloat16 import converter
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.quantised import open_logical_view
from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidWeights
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress

_PIECE = (
    256 << 10
)  # a multiple of every element's width; it and the arrays for rounding fit into a core's cache
_TOLD = 16 << 20


@dataclass(frozen=True, slots=True)
class BaseHashes:
    """The result of a full reading: the digests over all weights, and the SHA-256 of each file."""

    roots: Roots
    files: Mapping[str, Digest]


@dataclass(frozen=True, slots=True)
class _Stream:
    """Bytes [start, end) of a shard: a weight's (`tensor`), or the whole file's."""

    shard: str
    tensor: str | None
    start: int
    end: int
    dtype: str = ""

    @property
    def size(self) -> int:
        return self.end - self.start


def full_hashes(
    checkpoint: HfCheckpoint, record: BaseRecord, files: bool = True, progress: Progress = no_progress
) -> BaseHashes:
    """Computes digests over the weights in `record`, and of the files on request. Reads every byte.

    `canon` is None if converting a weight to bfloat16 needs numpy and numpy is not installed. Raises
    `InvalidWeights` if a file is truncated during the reading.
    """
    stored = _stored(checkpoint, record)
    streams = list(_streams(checkpoint, stored, files))
    thread_progress = _ThreadProgress(progress, sum(stream.size for stream in streams))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = dict(
            zip(
                streams,
                pool.map(lambda stream: _hash(checkpoint, stream, thread_progress), streams),
                strict=True,
            )
        )
    exact: dict[str, str] = {}
    canon: dict[str, str | None] = {}
    whole: dict[str, Digest] = {}
    for stream, (digest, rounded) in found.items():
        if stream.tensor is None:
            whole[stream.shard] = Digest(digest)
        else:
            exact[stream.tensor], canon[stream.tensor] = digest, rounded
    return BaseHashes(_roots(stored, exact, canon), dict(sorted(whole.items())))


def _stored(checkpoint: HfCheckpoint, record: BaseRecord) -> dict[str, TensorShape]:
    """The tensors on disk that form the record's tensors; for a quantised weight, all packed tensors."""
    packed = open_logical_view(checkpoint).packed
    stored = {name: tensor for name, tensor in record.tensors.items() if name not in packed}
    for part in (part for weight in packed.values() for part in weight.parts.values()):
        stored[part.name] = TensorShape(dtype=part.info.dtype, shape=part.info.shape)
    return stored


def _streams(checkpoint: HfCheckpoint, stored: Mapping[str, TensorShape], files: bool) -> Iterator[_Stream]:
    sizes = {shard: (checkpoint.folder / shard).stat().st_size for shard in checkpoint.shards}
    for shard in sorted(sizes, key=lambda name: (-sizes[name], name)):
        if files:
            yield _Stream(shard, None, 0, sizes[shard])
        infos = checkpoint.shards[shard].tensors
        weights = [name for name in infos if name in stored]
        for name in sorted(weights, key=lambda name: (-infos[name].size, name)):
            yield _Stream(shard, name, infos[name].start, infos[name].end, infos[name].dtype)


def _hash(checkpoint: HfCheckpoint, stream: _Stream, progress: _ThreadProgress) -> tuple[str, str | None]:
    """SHA-256 of the bytes, and of the same values as bfloat16."""
    exact = hashlib.sha256()
    round_to = converter(stream.dtype) if stream.tensor and stream.dtype in FLOATS else None
    canon = hashlib.sha256() if round_to else None
    with open_regular(checkpoint.folder / stream.shard) as file:
        for piece in _pieces(file, stream):
            exact.update(piece)
            if canon and round_to:
                canon.update(round_to(piece))
            progress.add(stream.shard, len(piece))
    if canon:
        return exact.hexdigest(), canon.hexdigest()
    needs_rounding = stream.dtype in FLOATS and stream.dtype != "BF16"
    return exact.hexdigest(), None if needs_rounding else exact.hexdigest()


def _pieces(file: io.FileIO, stream: _Stream) -> Iterator[memoryview]:
    """The stream's bytes in runs of elements, in one buffer: each is valid until the next is requested."""
    buffer = memoryview(bytearray(min(_PIECE, stream.size)))
    at = stream.start
    while at < stream.end:
        length = min(_PIECE, stream.end - at)
        filled = 0
        while filled < length:
            file.seek(at + filled)
            count = file.readinto(buffer[filled:length])
            if not count:
                raise InvalidWeights(
                    f"{stream.shard} became shorter while it was read; is it still being written?"
                )
            filled += count
        yield buffer[:length]
        at += length


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


class _ThreadProgress:
    """Sums the progress of all threads and reports it, at most every 16 MiB."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, total
        self._done = self._last = 0
        self._lock = threading.Lock()
        progress("hashing", 0, total)

    def add(self, shard: str, amount: int) -> None:
        with self._lock:
            self._done += amount
            if self._done - self._last >= _TOLD or self._done == self._total:
                self._last = self._done
                self._progress(f"hashing {shard}", self._done, self._total)
