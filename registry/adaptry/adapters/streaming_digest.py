"""The weights digest of a file that passes by once, from its first byte to its last.

So whoever receives a file need not read it again. It is the digest that `weights` reads from a file at rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from adaptry.adapters.header import ADAPTER_LIMITS, HeaderLimits, SafetensorsHeader, TensorInfo, parse_header
from adaptry.adapters.weights import combine_digests
from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidWeights

_LIMITS = HeaderLimits(size=1 << 20, tensors=ADAPTER_LIMITS.tensors)
"""Many files may be passing at once, so less is held of each than of one that is read."""


class StreamingWeightsDigest:
    """Fed the pieces of a file of `size` bytes, in order; `digest` then knows what they weigh.

    A file that is no safetensors, or has a header of over 1 MiB, is no error: there is no digest of it here.
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

    def digest(self) -> Digest | None:
        """None for what is no safetensors, and before its end."""
        if (
            self._header is None
            or self.position != self._size
            or len(self._digests) != len(self._header.tensors)
        ):
            return None
        return combine_digests(self._header.tensors, self._digests)

    def _begun(self) -> SafetensorsHeader | None:
        """The header once it is here. Raises `InvalidWeights`."""
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
        """Goes on to the tensor that begins at `at`; tensors without bytes are over at once."""
        while self._end == at or self._name is None:
            if self._name is not None:
                self._digests[self._name] = self._hasher.hexdigest()
            self._hasher = hashlib.sha256()
            self._name, info = next(self._to_come, (None, None))
            if info is None:
                return
            self._end = info.end
