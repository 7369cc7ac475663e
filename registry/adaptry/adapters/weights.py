"""The weights digest, which is equal for equal adapters, whichever tool wrote the file.

Tools order tensors and pad headers differently, and the order of metadata is random, so equal adapters have
different files. This digest covers (name, dtype, shape, bytes) of each tensor, sorted by name, and nothing
else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from adaptry.adapters.header import ReadAt, TensorInfo
from adaptry.core.digest import Digest

_PIECE = 1 << 20
_MAX_TENSORS = 256  # maximum number of tensors in a task
_WORTH_THREADS = 1 << 20  # bytes


def weights_digest(tensors: Mapping[str, TensorInfo], read: ReadAt) -> Digest:
    """Reads every tensor once, on all cores if that is faster (hashlib releases the interpreter lock)."""
    if sum(info.size for info in tensors.values()) < _WORTH_THREADS:
        return combine_digests(tensors, {name: _tensor_digest(info, read) for name, info in tensors.items()})
    digests: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for found in pool.map(lambda batch: _batch_digests(batch, read), _batches(tensors)):
            digests |= found
    return combine_digests(tensors, digests)


def combine_digests(tensors: Mapping[str, TensorInfo], digests: Mapping[str, str]) -> Digest:
    """The weights digest, given the SHA-256 (hex) of each tensor's bytes."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        info = tensors[name]
        hasher.update(f"{name}\t{info.dtype}\t{list(info.shape)}\t{digests[name]}\n".encode())
    return Digest(hasher.hexdigest())


def _batches(tensors: Mapping[str, TensorInfo]) -> Iterator[Mapping[str, TensorInfo]]:
    """Groups the tensors, so that the pool runs one task per group: a task takes 1.7 kB, as much as several
    small tensors.
    """
    batch: dict[str, TensorInfo] = {}
    size = 0
    for name, info in tensors.items():
        batch[name] = info
        size += info.size
        if size >= _PIECE or len(batch) == _MAX_TENSORS:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch


def _batch_digests(batch: Mapping[str, TensorInfo], read: ReadAt) -> dict[str, str]:
    return {name: _tensor_digest(info, read) for name, info in batch.items()}


def _tensor_digest(info: TensorInfo, read: ReadAt) -> str:
    hasher = hashlib.sha256()
    for offset in range(info.start, info.end, _PIECE):
        hasher.update(read(offset, min(_PIECE, info.end - offset)))
    return hasher.hexdigest()
