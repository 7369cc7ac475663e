"""A range of a shard that is read once, piece by piece, and hashed: for its file, its tensors, or both."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from adaptry.adapters.content import open_regular
from adaptry.adapters.header import FLOATS
from adaptry.bases.fingerprinting.bfloat16 import converter
from adaptry.core.errors import InvalidWeights
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.sha256_streams import Sha256Stream

PIECE = 256 << 10
"""Bytes that are read at once; they and the arrays for rounding fit into a core's cache."""

_MAX_ELEMENT_BYTES = 8  # bytes of an element

HashedPart = tuple[Sha256Stream, memoryview]
"""Bytes, and the stream to which they belong."""


@dataclass(frozen=True, slots=True)
class RangeTensor:
    """A tensor in a range: its name and dtype, and its bytes [start, end) in the file."""

    name: str
    dtype: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RangeDigests:
    """SHA-256 in hexadecimal: of the file, if it was hashed; of each tensor, and of the same values as
    bfloat16 (None if they cannot be converted).
    """

    file: str | None
    exact: dict[str, str]
    canon: dict[str, str | None]


class ShardRange:
    """Bytes [start, end) of the file `shard` in `folder`, with tensors in ascending order. If `is_file`, the
    range is the whole file, which is hashed too. One thread may use it at a time.
    """

    def __init__(
        self,
        folder: Path,
        shard: str,
        span: tuple[int, int],
        tensors: Sequence[RangeTensor],
        *,
        is_file: bool,
        is_interleaved: bool,
    ) -> None:
        self.shard = shard
        self.is_file = is_file
        self.tensors = tensors
        self._path = folder / shard
        self._at, self._end = span
        self._is_interleaved = is_interleaved
        self._whole = Sha256Stream(is_interleaved) if is_file else None
        self._begun = 0  # number of tensors whose hashing has begun
        self._open: _TensorHashes | None = None  # the tensor that has not ended yet
        self._ended: list[_TensorHashes] = []
        self._exact: dict[str, str] = {}
        self._canon: dict[str, str | None] = {}
        self._file: io.FileIO | None = None
        self._buffer = memoryview(b"")

    @property
    def left(self) -> int:
        """The number of bytes that have not been read."""
        return self._end - self._at

    def read_piece(self) -> tuple[int, list[HashedPart]]:
        """Reads the next bytes; returns the number of bytes to hash, not counting conversions, and all parts.
        The parts are valid until the next call, and must be hashed before `end_piece`.

        Raises `InvalidWeights` if the file has become shorter.
        """
        at, end = self._at, self._piece_end()
        data = self._read(at, end)
        parts: list[HashedPart] = [(self._whole, data)] if self._whole else []
        hashed = len(data) if self._whole else 0
        while tensor := self._tensor_before(end):
            part = data[max(0, tensor.start - at) : min(end, tensor.end) - at]
            hashes = self._open or _TensorHashes(tensor, self._is_interleaved)
            parts += hashes.parts(part)
            hashed += len(part)
            self._open = None if tensor.end <= end else hashes
            if self._open:
                break
            self._ended.append(hashes)
            self._begun += 1
        self._at = end
        return hashed, parts

    def end_piece(self) -> None:
        """Computes the digests of tensors that ended in the piece; after the last piece, closes the file."""
        for hashes in self._ended:
            self._exact[hashes.tensor.name], self._canon[hashes.tensor.name] = hashes.digests()
        self._ended.clear()
        if not self.left:
            self.close()

    def digests(self) -> RangeDigests:
        """The digests, after the last piece."""
        for tensor in self.tensors[self._begun :]:  # empty tensors at the end
            self._exact[tensor.name], self._canon[tensor.name] = _TensorHashes(tensor, False).digests()
        return RangeDigests(self._whole.hexdigest() if self._whole else None, self._exact, self._canon)

    def close(self) -> None:
        """Closes the file, if it is open."""
        if self._file is not None:
            self._file.close()
            self._file, self._buffer = None, memoryview(b"")

    def _tensor_before(self, end: int) -> RangeTensor | None:
        """The next tensor, if it begins before `end`."""
        if self._begun == len(self.tensors) or self.tensors[self._begun].start >= end:
            return None
        return self.tensors[self._begun]

    def _piece_end(self) -> int:
        """The end of the next piece, which splits no element."""
        end = min(self._at + PIECE, self._end)
        for place in range(self._begun, len(self.tensors)):
            tensor = self.tensors[place]
            if tensor.end > end:
                return end - max(0, end - tensor.start) % _MAX_ELEMENT_BYTES
        return end

    def _read(self, at: int, end: int) -> memoryview:
        if self._file is None:
            self._file = open_regular(self._path)
            self._file.seek(at)
            self._buffer = memoryview(bytearray(min(PIECE, self.left)))
        piece = self._buffer[: end - at]
        filled = 0
        while filled < len(piece):
            count = self._file.readinto(piece[filled:])
            if not count:
                raise InvalidWeights(
                    f"{self.shard} became shorter while it was read; is it still being written?"
                )
            filled += count
        return piece


class _TensorHashes:
    """The hash of a tensor's bytes, and that of its values as bfloat16, if they are converted."""

    def __init__(self, tensor: RangeTensor, is_interleaved: bool) -> None:
        self.tensor = tensor
        is_interleaved = is_interleaved and tensor.end - tensor.start >= PIECE
        self._exact = Sha256Stream(is_interleaved)
        self._round = converter(tensor.dtype) if tensor.dtype in FLOATS else None
        self._canon = Sha256Stream(is_interleaved) if self._round else None

    def parts(self, data: memoryview) -> list[HashedPart]:
        if self._round is None or self._canon is None:
            return [(self._exact, data)]
        return [(self._exact, data), (self._canon, self._round(data))]

    def digests(self) -> tuple[str, str | None]:
        exact = self._exact.hexdigest()
        if self._canon is not None:
            return exact, self._canon.hexdigest()
        needs_rounding = self.tensor.dtype in FLOATS and self.tensor.dtype != "BF16"
        return exact, None if needs_rounding else exact
