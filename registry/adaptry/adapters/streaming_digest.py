"""Computes the weights digest of a file while it is streamed once, from its first byte to its last.

So the receiver of a file need not read it again. The result equals that of `weights` for a stored file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from adaptry.adapters.header import ADAPTER_LIMITS, HeaderLimits, SafetensorsHeader, TensorInfo, parse_header
from adaptry.adapters.weights import combine_digests
from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidWeights

_LIMITS = HeaderLimits(size=1 << 20, tensors=ADAPTER_LIMITS.tensors)
"""Largest header, in bytes. Many files may be streamed at once, so the limit is lower than for stored
files.
"""


class StreamingWeightsDigest:
    """Takes the pieces of a file of `size` bytes, in order; then `digest` is its weights digest.

    A file that is not safetensors, or has a header over 1 MiB, is not an error, but has no digest here.
    """

    def __init__(self, size: int) -> None:
        self.position = 0
        self._size = size
        self._head = bytearray()
        self._header: SafetensorsHeader | None = None
        self._to_come: Iterator[tuple[str, TensorInfo]] = iter(())
        self._end = 0
        self._name: str | None = None
        self._hasher = hashlib.sha256()
        self._digests: dict[str, str] = {}
        self._is_foreign = False

    def update(self, piece: bytes | memoryview) -> None:
        """The next bytes of the file."""
        view = memoryview(piece)
        self.position += len(view)
        if self._is_foreign:
            return
        if self._header is not None:
            self._feed(view)
            return
        self._head += view
        try:
            self._header = self._begun()
        except InvalidWeights:
            self._is_foreign = True
        if self._header is not None or self._is_foreign:
            head, self._head = self._head, bytearray()
            if self._header is not None:
                self._to_come = iter(self._header.tensors.items())
                self._next(self._header.data_start)
                self._feed(memoryview(head)[self._header.data_start :])

    @property
    def header(self) -> SafetensorsHeader | None:
        """The header, once it has arrived; None if the file is not safetensors."""
        return self._header

    def digest(self) -> Digest | None:
        """The weights digest; None before the end of the file, and if it is not safetensors."""
        if (
            self._header is None
            or self.position != self._size
            or len(self._digests) != len(self._header.tensors)
        ):
            return None
        return combine_digests(self._header.tensors, self._digests)

    def _begun(self) -> SafetensorsHeader | None:
        """The header, once it is complete. Raises `InvalidWeights`."""
        if len(self._head) < min(self._size, 9):
            return None
        length = int.from_bytes(self._head[:8], "little")
        if length > _LIMITS.size or self._head[8:9] != b"{":
            raise InvalidWeights("not the beginning of a safetensors file")
        if len(self._head) < 8 + length:
            return None
        return parse_header(bytes(self._head[8 : 8 + length]), self._size, "the file", _LIMITS)

    def _feed(self, data: memoryview) -> None:
        at = self.position - len(data)
        while data:
            part = data[: self._end - at]
            self._hasher.update(part)
            at += len(part)
            data = data[len(part) :]
            if at == self._end:
                self._next(at)

    def _next(self, at: int) -> None:
        """Moves to the tensor that begins at `at`; empty tensors end at once."""
        while self._end == at or self._name is None:
            if self._name is not None:
                self._digests[self._name] = self._hasher.hexdigest()
            self._hasher = hashlib.sha256()
            self._name, info = next(self._to_come, (None, None))
            if info is None:
                return
            self._end = info.end
