"""Cursors: where a listing goes on, as an opaque url-safe text.

A cursor holds a place and nothing secret; what may be seen is decided anew for every page. It is bound to
what was asked, so that one from another listing is an error and not a silently wrong page. The mark that
binds it is no signature: anybody can compute it, so a place is checked like any other untrusted text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from adaptry.core.errors import Invalid

MAX_LIMIT = 200
_LONGEST = 512
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
INTEGER, BIG_INTEGER = (1 << 31) - 1, (1 << 63) - 1
"""The largest values of PostgreSQL's columns of these types."""


def encode(place: str | int, about: str) -> str:
    """The cursor of a place in the listing `about`."""
    return base64.urlsafe_b64encode(f"{_mark(str(place), about)}{place}".encode()).decode().rstrip("=")


def decode(cursor: str, about: str) -> str:
    """The place, printable text. Raises `Invalid` for a text that is not a cursor of this listing."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        raise _foreign() from None
    mark, place = text[:8], text[8:]
    # Unprintable characters: PostgreSQL takes no NUL in a text, and no name that is listed has any of the
    # others.
    if len(cursor) > _LONGEST or not place or not place.isprintable() or mark != _mark(place, about):
        raise _foreign()
    return place


def decode_number(cursor: str | None, about: str, largest: int = INTEGER) -> int | None:
    """As `decode`, of a place that is a number from 0 to `largest`, written as `encode` writes it; None for
    no cursor.

    `largest` is what the column that it is compared with can hold.
    """
    if cursor is None:
        return None
    place = decode(cursor, about)
    if not _NUMBER.fullmatch(place) or int(place) > largest:
        raise _foreign()
    return int(place)


def check_limit(limit: int) -> int:
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid(f"a page holds 1 to {MAX_LIMIT} items, not {limit}")
    return limit


def _foreign() -> Invalid:
    return Invalid("that cursor does not belong to this listing; begin again without one")


def _mark(place: str, about: str) -> str:
    return hashlib.sha256(f"{about}\0{place}".encode()).hexdigest()[:8]
