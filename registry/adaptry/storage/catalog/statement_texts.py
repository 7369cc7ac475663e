"""Prepared statements as SQL texts: importing SQLAlchemy takes longer than a command.

A statement is defined once, with SQLAlchemy, by a function of the module of its table (`@statement`).
`statement_texts.json` has what SQLAlchemy makes of it for SQLite; a test compares the two, and
`python tests/storage/write_sqlite_schema.py` writes the file. PostgreSQL runs the definition itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, field
from datetime import UTC, datetime
from functools import cache, cached_property, lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from sqlalchemy import CompoundSelect, Delete, Select, Update

Selection: TypeAlias = "Select[Any]"
CombinedSelection: TypeAlias = "CompoundSelect[Any]"
Statement: TypeAlias = "Select[Any] | CompoundSelect[Any] | Update | Delete"
"""(`Any`: statements are typed by their columns.)"""
S = TypeVar("S", bound="Statement", covariant=True)

FILE = Path(__file__).with_suffix(".json")


def _moment(text: str | None) -> datetime | None:
    """(`rows.Moment`: SQLite has no type for times.)"""
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)


def _moment_text(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")


CONVERSIONS: Mapping[str, Callable[[Any], object]] = {
    "moment": _moment,
    "boolean": lambda value: None if value is None else bool(value),
}
"""What makes a value of SQLAlchemy of one of SQLite, by the kind of column. (`Any`: of SQLite.)"""
BINDINGS: Mapping[str, Callable[[Any], object]] = {
    "moment": _moment_text,
    "boolean": lambda value: None if value is None else int(value),
    "float": lambda value: None if value is None else float(value),
}
"""What makes a value for SQLite, by the kind of column. (`Any`: of SQLAlchemy.)"""


@dataclass(frozen=True, slots=True)
class StatementText:
    """A statement for SQLite: its parameters in order, the values of those that are constants, for each of
    its columns None or a name in `CONVERSIONS`, and the kinds of those parameters that have one.
    """

    sql: str
    parameters: tuple[str, ...]
    constants: Mapping[str, object]
    columns: Mapping[str, str | None]
    bindings: Mapping[str, str] = field(default_factory=dict)


class PreparedStatement(Generic[S]):
    """A statement that `build` defines. If its text is stored under its name, SQLite runs it unbuilt."""

    def __init__(self, name: str, build: Callable[[], S]) -> None:
        self.name = name
        self._build = build
        self.compiled: Any = None
        """Kept for `prepared.compiled`. (`Any`: its class is above this module.)"""

    @cached_property
    def definition(self) -> S:
        """The statement of SQLAlchemy."""
        return self._build()

    @cached_property
    def text(self) -> StatementText:
        stored = _stored()[1].get(self.name)
        if stored is not None:
            return stored
        from adaptry.storage.catalog.statement_compiler import compile_statement

        return compile_statement(self.definition)

    def __repr__(self) -> str:
        return f"PreparedStatement({self.name!r})"


class SizedStatement(Generic[S]):
    """A family of statements with `size` parameters of a kind. Those of the `stored` sizes have texts."""

    def __init__(self, name: str, build: Callable[[int], S], stored: tuple[int, ...]) -> None:
        self.name = name
        self._build = build
        self.stored = stored
        self._of_size = lru_cache(maxsize=128)(self._build_of_size)

    def __call__(self, size: int) -> PreparedStatement[S]:
        return self._of_size(size)

    def _build_of_size(self, size: int) -> PreparedStatement[S]:
        return PreparedStatement(f"{self.name}({size})", partial(self._build, size))


def statement(build: Callable[[], S]) -> PreparedStatement[S]:
    """Makes a prepared statement of the function that builds it."""
    return PreparedStatement(_name_of(build), build)


def sized_statement(*stored: int) -> Callable[[Callable[[int], S]], SizedStatement[S]]:
    """Like `statement`, for a function of the number of parameters; texts are stored for these numbers."""
    return lambda build: SizedStatement(_name_of(build), build, stored)


def _name_of(build: Callable[..., object]) -> str:
    return f"{build.__module__.removeprefix(f'{__package__}.')}.{build.__name__}"


def _elsewhere(module: str, name: str) -> PreparedStatement[Statement]:
    """A statement that runs without importing the module that defines it."""

    def build() -> Statement:
        found: PreparedStatement[Statement] = getattr(import_module(f"{__package__}.{module}"), name)
        return found.definition

    return PreparedStatement(f"{module}.{name}", build)


ADAPTERS_BY_NAME = _elsewhere("adapter_statements", "shown_by_name")
ADAPTER_OF_NAME = _elsewhere("adapter_statements", "of_name")
NEWEST_VERSIONS = _elsewhere("version_info", "newest")
ALIASES_AND_METRICS_OF_NEWEST = _elsewhere("version_info", "aliases_and_metrics_of_newest")
REF_LATEST = _elsewhere("ref_resolution", "newest_active")
REF_BY_NUMBER = _elsewhere("ref_resolution", "by_number")
REF_BY_LABEL = _elsewhere("ref_resolution", "by_label")
REF_BY_DIGEST = _elsewhere("ref_resolution", "by_digest")
TREE = _elsewhere("commits", "tree_of_revision")
WITHDRAWN_REVISION = _elsewhere("states", "of_revision")
ALL_DAMAGED = _elsewhere("damage", "every")
COUNT_FOR_VERSION = _elsewhere("versions", "more_downloads")
COUNT_FOR_ADAPTER = _elsewhere("adapter_statements", "more_downloads")


def schema() -> str:
    """The number of the schema to which the texts apply."""
    return _stored()[0]


def encode(schema: str, texts: Mapping[str, StatementText]) -> str:
    """The content of the file."""
    document = {"schema": schema, "statements": {name: asdict(text) for name, text in texts.items()}}
    return json.dumps(document, indent=1) + "\n"


@cache
def _stored() -> tuple[str, dict[str, StatementText]]:
    found = json.loads(FILE.read_text(encoding="utf-8"))
    return found["schema"], {
        name: StatementText(
            text["sql"], tuple(text["parameters"]), text["constants"], text["columns"], text["bindings"]
        )
        for name, text in found["statements"].items()
    }
