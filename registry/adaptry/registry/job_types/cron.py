"""Cron expressions with five fields, in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Self

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_MAX_DAYS_OF_MONTH = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_PART = re.compile(r"(\*|([0-9]{1,2})(?:-([0-9]{1,2}))?)(?:/([0-9]{1,2}))?")
GRAMMAR = (
    "five fields, minute hour day month weekday (0 is Sunday), each *, 5, 1-5, */15 or a list of those,"
    " in UTC"
)


@dataclass(frozen=True, slots=True)
class Cron:
    """`minute hour day month weekday`. If both day and weekday are restricted, either may match
    (crontab(5)).
    """

    text: str
    fields: tuple[frozenset[int], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses a cron expression. Raises `Invalid`."""
        words = text.split()
        if len(words) != len(_FIELDS):
            raise Invalid(f"not a schedule: {text[:80]!a} ({GRAMMAR})")
        fields = [_values(word, *field) for word, field in zip(words, _FIELDS, strict=True)]
        fields[4] = frozenset(day % 7 for day in fields[4])
        return cls(" ".join(words), tuple(fields))

    def matches(self, moment: datetime) -> bool:
        """Whether the expression is due in this minute."""
        moment = moment.astimezone(UTC)
        minute, hour, day, month, weekday = self.fields
        if not (moment.minute in minute and moment.hour in hour and moment.month in month):
            return False
        is_day, is_weekday = moment.day in day, moment.isoweekday() % 7 in weekday
        words = self.text.split()
        return is_day or is_weekday if "*" not in (words[2], words[4]) else is_day and is_weekday

    @property
    def is_ever_due(self) -> bool:
        """Whether the expression can ever be due; 30 February, for example, cannot."""
        _, _, day, month, _ = self.fields
        return self.text.split()[4] != "*" or min(day) <= max(_MAX_DAYS_OF_MONTH[each] for each in month)

    def last(self, after: datetime, until: datetime) -> datetime | None:
        """The latest due minute after `after` and not after `until`."""
        minute = until.astimezone(UTC).replace(second=0, microsecond=0)
        while minute > after:
            if self.matches(minute):
                return minute
            minute -= timedelta(minutes=1)
        return None


def _values(word: str, name: str, minimum: int, maximum: int) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise Invalid(f"not a schedule: {part[:40]!a} is not a {name} ({GRAMMAR})")
        first, last = (match[2] or minimum, match[3] or match[2] or maximum)
        if match[4] and match[2] and not match[3]:
            last = maximum  # 5/15 starts at 5
        step = int(match[4] or 1)
        if not minimum <= int(first) <= int(last) <= maximum or step < 1:
            raise Invalid(
                f"not a schedule: {part[:40]!a} is not a {name} from {minimum} to {maximum} ({GRAMMAR})"
            )
        found.update(range(int(first), int(last) + 1, step))
    return frozenset(found)
