"""The weights digest, which is equal for equal adapters, whichever tool wrote the file.

Tools order tensors and pad headers differently, and the order of metadata is random, so equal adapters have
different files. This digest covers (name, dtype, shape, bytes) of each tensor, sorted by name, and nothing
else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from adaptry.adapters.header import ReadAt, TensorInfo
from adaptry.core.digest import Digest

_PIECE = 1 << 20
_WORTH_THREADS = 1 << 20  # bytes


def weights_digest(tensors: Mapping[str, TensorInfo], read: ReadAt) -> Digest:
    """Reads every tensor once, on all cores if that pays off (hashlib releases the interpreter lock)."""
    if sum(info.size for info in tensors.values()) < _WORTH_THREADS:
        return combine_digests(tensors, {name: _tensor_digest(info, read) for name, info in tensors.items()})
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        digests = dict(
            zip(tensors, pool.map(lambda info: _tensor_digest(info, read), tensors.values()), strict=True)
        )
    return combine_digests(tensors, digests)


def combine_digests(tensors: Mapping[str, TensorInfo], digests: Mapping[str, str]) -> Digest:
    """The weights digest, given the SHA-256 (hex) of each tensor's bytes."""
    lines = (
        f"{name}\t{tensors[name].dtype}\t{list(tensors[name].shape)}\t{digests[name]}\n"
        for name in sorted(tensors)
    )
    return Digest.of("".join(lines).encode())


def _tensor_digest(info: TensorInfo, read: ReadAt) -> str:
    hasher = hashlib.sha256()
    for offset in range(info.start, info.end, _PIECE):
        hasher.update(read(offset, min(_PIECE, info.end - offset)))
    return hasher.hexdigest()
