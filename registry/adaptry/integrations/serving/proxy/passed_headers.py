"""Selects the headers that a proxy passes on: all except those that concern one connection (RFC 9110, section
7.6.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


def end_to_end(headers: Iterable[tuple[str, str]], also: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Leaves out the headers of the connection: the fixed ones, those that `Connection` names, and `also`
    (in lower case)."""
    found = list(headers)
    named = {
        one.strip().lower()
        for name, value in found
        if name.lower() == "connection"
        for one in value.split(",")
    }
    return ((name, value) for name, value in found if name.lower() not in _HOP_BY_HOP | named | also)
