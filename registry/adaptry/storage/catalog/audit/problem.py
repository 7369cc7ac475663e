"""A problem that an audit found: its place, a description, and the kind of the damaged data, which decides
whether it can be repaired.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from sqlalchemy.exc import SQLAlchemyError

from adaptry.core.errors import AdaptryError, Unavailable
from adaptry.core.lazy_dataclass import dataclass

ProblemKind = Literal["file", "manifest", "derived", "outdated", "row", "database"]
"""`file`: stored bytes; `manifest`: a revision's row; `derived`: rows that follow from others and can be
rebuilt; `outdated`: data derived by older rules or with less knowledge of a base, which can be derived again;
`row`: rows that cannot be derived from other data; `database`: reported by the database itself.
"""

UNREADABLE = (
    AdaptryError,
    SQLAlchemyError,
    ArithmeticError,
    AttributeError,
    LookupError,
    zlib.error,
    TypeError,
    ValueError,
)
"""The errors of reading a row with malformed values."""


@dataclass(frozen=True, slots=True)
class IntegrityProblem:
    """Stored data that is damaged or contradicts other data: its place and the fault.

    `key` identifies the damaged data within its kind: the digest of a file or manifest, `version:12`,
    `base:<id>`.
    """

    where: str
    reason: str
    kind: ProblemKind = "row"
    key: str = ""

    @property
    def is_damage(self) -> bool:
        """Whether stored data is wrong, rather than derived by older rules."""
        return self.kind != "outdated"


def guard_problems(
    location: str, look: Callable[[], Iterable[IntegrityProblem]]
) -> Iterator[IntegrityProblem]:
    """The problems that `look` finds; unreadable values are a problem too. Raises `Unavailable`."""
    try:
        yield from look()
    except Unavailable:
        raise
    except UNREADABLE as error:
        reason = error.message if isinstance(error, AdaptryError) else f"{type(error).__name__}: {error}"
        yield IntegrityProblem(location, f"cannot be read: {reason[:300]}")


def compare_values(
    location: str, name: str, actual: object, expected: object, source: str
) -> Iterator[IntegrityProblem]:
    """A problem if a stored value differs from the one that `source` gives."""
    if actual != expected:
        yield IntegrityProblem(location, f"{name} is {_short(actual)}, but {source} gives {_short(expected)}")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
