"""Refuses a search that found nothing because it names a method or a finding that does not exist.

A registry may have versions of methods that this program does not know. So a value is unknown only if it is
in no table of ours and no version that the caller may read has it, in any state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from adaptry.core.errors import InvalidQuery
from adaptry.core.query import Query
from adaptry.core.query_terms import TextTerm, unknown_value


def refuse_unknown_values(query: Query, is_found: Callable[[str], bool]) -> None:
    """Raises `InvalidQuery`, with a suggestion. `is_found`: whether a query finds any version."""
    for term in query.text_terms():
        known = _known_values(term.field)
        if known is None or term.is_one_of(known) or is_found(f"{term} state:*"):
            continue
        raise InvalidQuery(_confused(term) or unknown_value(term, known))


def _known_values(field: str) -> Iterable[str] | None:
    """The values of a field that has a table; None for other fields."""
    if field == "method":
        from adaptry.adapters.formats import METHODS_OF_OTHER_TOOLS
        from adaptry.adapters.methods import METHODS

        return (*METHODS, *METHODS_OF_OTHER_TOOLS)
    if field == "finding":
        from adaptry.checks.base_codes import BASE_CODES
        from adaptry.checks.codes import ADAPTER_CODES

        return (*ADAPTER_CODES, *BASE_CODES)
    return None


def _confused(term: TextTerm) -> str | None:
    """A hint for a trait of LoRAs that is often called a method but is none."""
    from adaptry.adapters.methods.lora_config import TRAITS

    name = term.text.lower()
    if term.field != "method" or name not in TRAITS:
        return None
    return f"no method is called {name!r}; {name} is a trait of LoRAs, which trait:{name} finds"
