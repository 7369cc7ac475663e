"""What an audit finds: where, what is wrong, and what kind of thing is damaged, which decides whether it can be mended."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.exc import SQLAlchemyError

from adaptry.core.errors import AdaptryError, Unavailable

ProblemKind = Literal["file", "manifest", "derived", "row", "database"]
"""`file`: stored bytes; `manifest`: a revision's row; `derived`: rows that follow from others and can be rebuilt; `row`: rows
of which nothing here says what they should be; `database`: what the database says of itself."""

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
    """Something that is not as it was stored: where, and what that means.

    `key` identifies what is damaged among its kind: the digest of a file or manifest, `version:12`, `base:<id>`.
    """

    where: str
    reason: str
    kind: ProblemKind = "row"
    key: str = ""


def guard_problems(where: str, look: Callable[[], Iterable[IntegrityProblem]]) -> Iterator[IntegrityProblem]:
    """What `look` finds; that it cannot read something is a problem too. Raises `Unavailable`."""
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
    """A problem if a value is not what another place says."""
    if found != expected:
        yield IntegrityProblem(where, f"{name} is {_short(found)}, and {source} says {_short(expected)}")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
