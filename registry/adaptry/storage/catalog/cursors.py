"""Cursors: the position at which a listing continues, as opaque URL-safe text.

A cursor contains a position and nothing secret; access is checked again for every page. It is bound to the
query, so that a cursor of another listing is an error and not a silently wrong page. The checksum that binds
it is not a signature: anyone can compute it, so a position is checked like any other untrusted text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from adaptry.core.errors import Invalid
from adaptry.core.lazy_pattern import lazy_pattern

MAX_LIMIT = 200
_MAX_LENGTH = 512
_NUMBER = lazy_pattern(r"0|[1-9][0-9]{0,18}")
INTEGER, BIG_INTEGER = (1 << 31) - 1, (1 << 63) - 1
"""The largest values of PostgreSQL's columns of these types."""


def encode(place: str | int, about: str) -> str:
    """The cursor of a position in the listing `about`."""
    return base64.urlsafe_b64encode(f"{_mark(str(place), about)}{place}".encode()).decode().rstrip("=")


def decode(cursor: str, about: str) -> str:
    """The position, as printable text. Raises `Invalid` for a text that is not a cursor of this listing."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        raise foreign() from None
    mark, place = text[:8], text[8:]
    # Unprintable characters: PostgreSQL refuses NUL in a text, and no listed name contains any of the others.
    if len(cursor) > _MAX_LENGTH or not place or not place.isprintable() or mark != _mark(place, about):
        raise foreign()
    return place


def decode_number(cursor: str | None, about: str, largest: int = INTEGER) -> int | None:
    """Like `decode`, for a position that is a number from 0 to `largest`, as `encode` writes it; None
    without a cursor.

    `largest` is the maximum value of the column that it is compared with.
    """
    if cursor is None:
        return None
    place = decode(cursor, about)
    if not _NUMBER.fullmatch(place) or int(place) > largest:
        raise foreign()
    return int(place)


def check_limit(limit: int) -> int:
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid(f"limit must be from 1 to {MAX_LIMIT}, not {limit}")
    return limit


def foreign() -> Invalid:
    """The error for a cursor that is malformed or belongs to another listing."""
    return Invalid("that cursor does not belong to this listing; begin again without one")


def _mark(place: str, about: str) -> str:
    return hashlib.sha256(f"{about}\0{place}".encode()).hexdigest()[:8]
