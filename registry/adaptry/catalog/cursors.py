"""Cursors: where a listing goes on, as an opaque url-safe text.

A cursor holds a place and nothing secret; what may be seen is decided anew for every page. It is bound to
what was asked, so that one from another listing is an error and not a silently wrong page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from adaptry.errors import Invalid

MAX_LIMIT = 200


def encode(place: str | int, about: str) -> str:
    """The cursor of a place in the listing `about`."""
    return base64.urlsafe_b64encode(f"{_mark(str(place), about)}{place}".encode()).decode().rstrip("=")


def decode(cursor: str, about: str) -> str:
    """The place. Raises `Invalid` for a text that is not a cursor of this listing."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        text = ""
    mark, place = text[:8], text[8:]
    if len(cursor) > 512 or not place or mark != _mark(place, about):
        raise Invalid("that cursor does not belong to this listing; begin again without one")
    return place


def decode_number(cursor: str | None, about: str) -> int | None:
    """As `decode`, of a place that is a number; None for no cursor."""
    return None if cursor is None else int(decode(cursor, about))


def check_limit(limit: int) -> int:
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid(f"a page holds 1 to {MAX_LIMIT} items, not {limit}")
    return limit


def _mark(place: str, about: str) -> str:
    return hashlib.sha256(f"{about}\0{place}".encode()).hexdigest()[:8]
