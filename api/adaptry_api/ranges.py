"""The requested part of a file: at most one `Range`, in bytes."""

from __future__ import annotations

import re

from adaptry.core.lazy_dataclass import dataclass

_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")


@dataclass(frozen=True, slots=True)
class HttpRange:
    """Bytes `start` up to, not including, `end` of a file of `size` bytes."""

    start: int
    end: int
    size: int

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def is_whole(self) -> bool:
        return self.length == self.size

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def parse_range(header: str | None, size: int) -> HttpRange | None:
    """The range in a `Range` header; None if it contains no byte of the file.

    A header that is not a single range of bytes is ignored, as RFC 9110 §14.2 allows, and the whole file is
    sent, so that many ranges cost no more than one.
    """
    match = _RANGE.fullmatch(header.replace(" ", "")) if header and len(header) < 100 else None
    if match is None:
        return HttpRange(0, size, size)
    first, last, suffix = match.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start, end = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < start:
            return HttpRange(0, size, size)
    return HttpRange(start, end, size) if start < end else None
