"""The statements with which a command begins, as SQL texts: importing SQLAlchemy takes longer than a command.

A statement is defined once, with SQLAlchemy, in the module of its table. `NamedStatement` refers to that
definition. `statement_texts.json` has what SQLAlchemy makes of it for SQLite; a test compares the two, and
`python tests/storage/write_sqlite_schema.py` writes the file. PostgreSQL runs the definition itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import CompoundSelect, Select, Update

FILE = Path(__file__).with_suffix(".json")


def _moment(text: str | None) -> datetime | None:
    """(`rows.Moment`: SQLite has no type for times.)"""
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)


CONVERSIONS: Mapping[str, Callable[[Any], object]] = {
    "moment": _moment,
    "boolean": lambda value: None if value is None else bool(value),
}
"""What makes a value of SQLAlchemy of one of SQLite, by the kind of column. (`Any`: of SQLite.)"""


@dataclass(frozen=True, slots=True)
class StatementText:
    """A statement for SQLite: its parameters in order, the values of those that are constants, and for each
    of its columns None or a name in `CONVERSIONS`.
    """

    sql: str
    parameters: tuple[str, ...]
    constants: Mapping[str, object]
    columns: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class NamedStatement:
    """The statement `name` of a module of this package."""

    module: str
    name: str

    def definition(self) -> Select[Any] | CompoundSelect[Any] | Update:
        """(`Any`: typed by its columns.)"""
        found: Select[Any] | Update = getattr(import_module(f"{__package__}.{self.module}"), self.name)
        return found

    def text(self) -> StatementText:
        return _stored()[1][f"{self.module}.{self.name}"]


ADAPTERS_BY_NAME = NamedStatement("adapters", "SHOWN_BY_NAME")
ADAPTER_OF_NAME = NamedStatement("adapters", "FOUND")
NEWEST_VERSIONS = NamedStatement("version_info", "NEWEST")
BESIDE_NEWEST = NamedStatement("version_info", "BESIDE_NEWEST")
REF_LATEST = NamedStatement("ref_resolution", "NEWEST_ACTIVE")
REF_BY_NUMBER = NamedStatement("ref_resolution", "BY_NUMBER")
REF_BY_LABEL = NamedStatement("ref_resolution", "BY_LABEL")
REF_BY_DIGEST = NamedStatement("ref_resolution", "BY_DIGEST")
TREE = NamedStatement("commits", "TREE")
WITHDRAWN_REVISION = NamedStatement("states", "OF_REVISION")
ALL_DAMAGED = NamedStatement("damage", "ALL")
COUNT_FOR_VERSION = NamedStatement("versions", "COUNT_DOWNLOAD")
COUNT_FOR_ADAPTER = NamedStatement("adapters", "COUNT_DOWNLOAD")
NAMED = (
    ADAPTERS_BY_NAME,
    ADAPTER_OF_NAME,
    NEWEST_VERSIONS,
    BESIDE_NEWEST,
    REF_LATEST,
    REF_BY_NUMBER,
    REF_BY_LABEL,
    REF_BY_DIGEST,
    TREE,
    WITHDRAWN_REVISION,
    ALL_DAMAGED,
    COUNT_FOR_VERSION,
    COUNT_FOR_ADAPTER,
)


def schema() -> str:
    """The number of the schema to which the texts apply."""
    return _stored()[0]


def encode(schema: str, texts: Mapping[NamedStatement, StatementText]) -> str:
    """The content of the file."""
    named = {f"{one.module}.{one.name}": asdict(text) for one, text in texts.items()}
    return json.dumps({"schema": schema, "statements": named}, indent=1) + "\n"


@cache
def _stored() -> tuple[str, dict[str, StatementText]]:
    found = json.loads(FILE.read_text(encoding="utf-8"))
    return found["schema"], {
        name: StatementText(text["sql"], tuple(text["parameters"]), text["constants"], text["columns"])
        for name, text in found["statements"].items()
    }
