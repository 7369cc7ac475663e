"""A base's record in a request: up to 64 MiB of JSON, checked as a whole in a child process.

The child parses and validates the document, so a refused document costs the server process only the time to
send its bytes. The server builds the record from a document that passes.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from adaptry.adapters.base_record import BaseRecord, Sketch, TensorShape
from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.processes.json_check import loads_in_child
from adaptry_api.faults import first_fault


class NewBase(BaseModel, extra="forbid"):
    """A base's record, as created by `adaptry base add`, and its names."""

    record: BaseRecord
    names: tuple[Annotated[str, Field(min_length=1, max_length=512)], ...] = Field(default=(), max_length=64)


_TABLES: dict[str, TypeAdapter[Any]] = {
    "tensors": TypeAdapter(TensorShape),
    "sketches": TypeAdapter(Sketch),
    "file_hashes": TypeAdapter(Digest),
}


def read_new_base(data: bytes, limits: strictjson.JsonLimits) -> NewBase:
    """Reads the base from the request's body. Raises `Invalid`, and `Unavailable` if no process can be
    started or the process crashed.
    """
    return _new_base(loads_in_child(data, limits, "the request", checker="adaptry_api.base_document"))


def answer(data: bytes, size: str, depth: str, nodes: str, what: str) -> bytes:
    """The reason for refusing the document; empty if it is valid."""
    try:
        _new_base(strictjson.loads(data, strictjson.JsonLimits(int(size), int(depth), int(nodes)), what))
    except Invalid as error:
        return error.message.encode("utf-8", "replace")
    return b""


def _new_base(document: Any) -> NewBase:
    """The body of a request, its tables validated entry by entry, so that other threads run in between and
    validation ends at the first fault. (`Any`: JSON.) Raises `Invalid`.
    """
    where = ""
    try:
        if isinstance(document, dict) and isinstance(record := document.get("record"), dict):
            for table, kind in _TABLES.items():
                if isinstance(entries := record.get(table), dict):
                    for name, value in entries.items():
                        where = f"record.{table}.{name}."
                        entries[name] = kind.validate_python(value)
        where = ""
        return NewBase.model_validate(document)
    except ValidationError as error:
        raise Invalid(f"not a valid base record: {where[:200]}{first_fault(error)}") from None
