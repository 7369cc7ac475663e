"""A staging as a row of objects: `tmp/<key>.<offset>.<nonce>`, each a run of bytes from that offset on.

A name is used once, so a segment never changes, and a publisher names exactly the segments whose bytes it has
hashed. Two writers of one staging, which a lease normally prevents, may therefore waste work but never mix
bytes.

A name that ends in `.open` has a presigned URL: its bytes may change until the URL expires.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence

from adaptry.core.errors import NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.blobs.s3.objects import S3Object

SEGMENT = 8 << 20
MIN_PART = 5 << 20
"""Minimum size of a part in S3, except the last."""

_KEY = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"tmp/([0-9a-f]{32})\.([0-9a-f]{12})\.[0-9a-f]{16}(\.open)?")
_ANY = re.compile(r"tmp/([0-9a-f]{32})\..*")


@dataclass(frozen=True, slots=True)
class StagedSegment:
    """An object with the bytes from `start` to `end` of a staging."""

    name: str
    start: int
    size: int
    is_open: bool = False

    @property
    def end(self) -> int:
        return self.start + self.size


def folder(key: str) -> str:
    """The prefix of all objects of a staging. Raises `NotFound` if the key is malformed."""
    if not _KEY.fullmatch(key):
        raise NotFound("no such upload")
    return f"tmp/{key}."


def new_name(key: str, start: int) -> str:
    return f"{folder(key)}{start:012x}.{secrets.token_hex(8)}"


def new_open_name(key: str, start: int) -> str:
    return f"{new_name(key, start)}.open"


def key_of(name: str) -> str | None:
    """The staging that an object belongs to."""
    match = _ANY.fullmatch(name)
    return match[1] if match else None


def chain(found: Iterable[S3Object]) -> tuple[StagedSegment, ...]:
    """The segments that form a run of bytes from 0 on; if several begin at one offset, the longest."""
    longest: dict[int, StagedSegment] = {}
    for item in found:
        match = _NAME.fullmatch(item.key)
        if match and item.size:
            segment = StagedSegment(item.key, int(match[2], 16), item.size, is_open=bool(match[3]))
            rival = longest.get(segment.start)
            if rival is None or segment.size > rival.size:
                longest[segment.start] = segment
    row: list[StagedSegment] = []
    while following := longest.get(row[-1].end if row else 0):
        row.append(following)
    return tuple(row)


def parts(row: Sequence[StagedSegment], minimum: int = MIN_PART) -> Iterator[tuple[StagedSegment, ...]]:
    """The segments in groups of at least the minimum part size, except the last."""
    group: list[StagedSegment] = []
    for segment in row:
        group.append(segment)
        if sum(one.size for one in group) >= minimum:
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)
