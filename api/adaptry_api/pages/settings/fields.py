"""Fields of forms as values: words, numbers, sizes. Each raises `Invalid` with the field's name."""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.core.byte_sizes import parse_bytes
from adaptry.core.errors import Invalid
from adaptry.registry.access import GrantInfo


def text_of(fields: Mapping[str, str], name: str) -> str:
    """The field without blanks around it. Raises `Invalid` if it is empty."""
    found = fields.get(name, "").strip()
    if not found:
        raise Invalid(f"fill in the field {name.replace('_', ' ')!r}")
    return found


def optional_text(fields: Mapping[str, str], name: str) -> str | None:
    return fields.get(name, "").strip() or None


def words_of(fields: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Words with blanks or commas between them."""
    return tuple(fields.get(name, "").replace(",", " ").split())


def count_of(fields: Mapping[str, str], name: str) -> int | None:
    """A whole number; None if the field is empty."""
    written = fields.get(name, "").strip()
    if not written:
        return None
    if not written.isascii() or not written.isdigit() or len(written) > 16:
        raise Invalid(f"{name}: not a whole number: {written[:40]!a}")
    return int(written)


def bytes_of(fields: Mapping[str, str], name: str) -> int | None:
    """An amount of bytes, such as 20GB; None if the field is empty."""
    written = fields.get(name, "").strip()
    return parse_bytes(written) if written else None


def days_of(fields: Mapping[str, str], name: str = "days") -> float:
    """A number of days or hours."""
    written = text_of(fields, name)
    try:
        return float(written)
    except ValueError:
        raise Invalid(f"{name}: not a number: {written[:40]!a}") from None


def receiver_of(grant: GrantInfo) -> str:
    """The holder of a grant, in words."""
    return grant.principal or f"group {grant.group}"
