"""A problem that an audit found: where, what is wrong, and the kind of the damaged data, which decides
whether it can be repaired.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.exc import SQLAlchemyError

from adaptry.core.errors import AdaptryError, Unavailable

ProblemKind = Literal["file", "manifest", "derived", "row", "database"]
"""`file`: stored bytes; `manifest`: a revision's row; `derived`: rows that follow from others and can be
rebuilt; `row`: rows of which nothing here says what they should be; `database`: what the database says of
itself.
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
"""What reading a row may raise when its values are not of their types."""


@dataclass(frozen=True, slots=True)
class IntegrityProblem:
    """Stored data that is damaged or contradicts other data: where, and how.

    `key` identifies what is damaged among its kind: the digest of a file or manifest, `version:12`,
    `base:<id>`.
    """

    where: str
    reason: str
    kind: ProblemKind = "row"
    key: str = ""


def guard_problems(where: str, look: Callable[[], Iterable[IntegrityProblem]]) -> Iterator[IntegrityProblem]:
    """The problems that `look` finds; values that it cannot read are a problem too. Raises `Unavailable`."""
    try:
        yield from look()
    except Unavailable:
        raise
    except UNREADABLE as error:
        said = error.message if isinstance(error, AdaptryError) else f"{type(error).__name__}: {error}"
        yield IntegrityProblem(where, f"cannot be read: {said[:300]}")


def compare_values(
    where: str, name: str, found: object, expected: object, source: str
) -> Iterator[IntegrityProblem]:
    """A problem if a stored value differs from the one that `source` gives."""
    if found != expected:
        yield IntegrityProblem(where, f"{name} is {_short(found)}, but {source} gives {_short(expected)}")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
