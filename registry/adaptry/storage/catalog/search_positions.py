"""Positions in the order of a search, and cursors of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.registry.sort_keys import SearchOrder
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.cursor_seal import CursorSeal

SealMaker = Callable[[], CursorSeal]
_KINDS = {
    **dict.fromkeys(("rank", "downloads"), "integer"),
    "size": "long",
    "alpha": "float",
    **dict.fromkeys(("created", "updated"), "time"),
}


@dataclass(frozen=True, slots=True)
class SearchPosition:
    """The position of a version: its key, its value in the order (None: it has none), and what decides among
    equal values: the adapter's name and the version's number, or the key of a row of evidence.
    """

    key: int
    value: Any = None  # a number or a time
    name: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class Ordering:
    """An order, and its direction. All but names begin with the largest or newest."""

    order: SearchOrder
    reverse: bool = False

    @property
    def is_descending(self) -> bool:
        """Whether its values descend; names with equal values are in the other direction."""
        return (self.order.column != "name") is not self.reverse

    @property
    def kind(self) -> str:
        """The type of its values."""
        return _KINDS.get(self.order.column or "", "float" if self.order.column is None else "none")

    def sorted(self, positions: Iterable[SearchPosition]) -> list[SearchPosition]:
        """The positions in this order, those without a value last."""
        given = list(positions)
        column = self.order.column
        if column in ("name", "updated"):
            given.sort(key=lambda position: position.number, reverse=not self.reverse)
            given.sort(key=lambda position: position.name, reverse=self.reverse)
            if column == "updated":
                given.sort(key=lambda position: position.value, reverse=self.is_descending)
            return given
        valued = [position for position in given if position.value is not None]
        valued.sort(key=lambda position: (position.value, position.key), reverse=self.is_descending)
        others = [position for position in given if position.value is None]
        return valued + sorted(others, key=lambda position: position.key, reverse=self.is_descending)

    def after(
        self, positions: Iterable[SearchPosition], position: SearchPosition | None
    ) -> list[SearchPosition]:
        """The positions that come after a given one in this order."""
        if position is None:
            return self.sorted(positions)
        ordered = self.sorted([one for one in positions if one.key != position.key] + [position])
        return ordered[ordered.index(position) + 1 :]


def encode(position: SearchPosition, now: datetime | None, about: str, seal: SealMaker | None = None) -> str:
    """The cursor of a position. `now`: the moment that the first page counted from, if the query does. With a
    seal, nothing but the key of a version can be read from it.
    """
    if position == SearchPosition(position.key) and now is None:
        return cursors.encode(position.key, about)
    value = position.value.isoformat() if isinstance(position.value, datetime) else position.value
    fields = [position.key, value, position.name, position.number, now.isoformat() if now else None]
    text = json.dumps(fields, separators=(",", ":"))
    return cursors.encode(seal().seal(text, about) if seal else text, about)


def decode(
    cursor: str, ordering: Ordering, about: str, seal: SealMaker | None = None
) -> tuple[SearchPosition, datetime | None]:
    """The position in a cursor. Raises `Invalid` for a text that is not a cursor of this search."""
    text = cursors.decode(cursor, about)
    if seal and not text.isdecimal():
        text = seal().open(text, about)
    if not text.startswith("["):
        key = cursors.decode_number(cursor, about)
        assert key is not None
        if ordering.order.column != "newest" and ordering.kind in ("none", "time"):
            raise cursors.foreign()
        return SearchPosition(key), None
    try:
        key, value, name, number, now = json.loads(text)
        position = SearchPosition(
            _integer(key, cursors.INTEGER),
            None if value is None else _value(value, ordering.kind),
            name if name == "" else str(AdapterName.parse(name)),
            _integer(number, cursors.BIG_INTEGER),
        )
        if ordering.order.column in ("name", "updated") and (
            not position.name or (ordering.order.column == "updated") is (value is None)
        ):
            raise ValueError(text)
        if ordering.order.column == "created" and value is None:
            raise ValueError(text)
        return position, None if now is None else _time(now)
    except (Invalid, ValueError, TypeError, OverflowError, RecursionError):
        raise cursors.foreign() from None


def _value(value: object, kind: str) -> object:
    match kind:
        case "integer":
            return _integer(value, cursors.INTEGER)
        case "long":
            return _integer(value, cursors.BIG_INTEGER)
        case "time":
            return _time(value)
        case "float" if isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number):
                return number
    raise ValueError(value)


def _integer(value: object, largest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        raise ValueError(value)
    return value


def _time(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError(value)
    return datetime.fromisoformat(value).astimezone(UTC)
