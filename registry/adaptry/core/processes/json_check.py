"""Checks a large JSON document in a child process, so that a hostile one only makes its sender wait.

The child reads the document as `strictjson.loads` does, at a lower priority and within bounds on time and
memory. A document that passes is unambiguous and has few values, so the standard library then reads it in a
few milliseconds; the reader serves its other threads meanwhile. Standard library only.
"""

from __future__ import annotations

import json
from typing import Any

from adaptry.core import strictjson
from adaptry.core.errors import Invalid, Unavailable
from adaptry.core.processes.bounded import ProcessFailed, ProcessLimits, ProcessTimeout
from adaptry.core.processes.worker_pool import run_in_worker

_MIB = 1 << 20
_FEW = 20_000
"""Values that one call of C makes in 5 ms; in steps that others may interrupt, they take twice as long."""


def loads_in_child(
    data: bytes, limits: strictjson.JsonLimits, what: str, checker: str = "adaptry.core.processes.json_check"
) -> Any:
    """As `strictjson.loads`. Raises `Unavailable` if no process can start, or it crashed. (`Any`: JSON.)

    `checker` is the module whose `answer` reads the document: it may refuse more than `answer` here does.
    """
    mib = len(data) // _MIB + 1
    arguments = [str(limits.size), str(limits.depth), str(limits.nodes), what]
    bounds = ProcessLimits(4.0 + 2.0 * mib, (256 + 64 * mib) * _MIB)
    try:
        refusal = run_in_worker(checker, data, bounds, arguments)
    except ProcessTimeout:
        raise Invalid(f"{what} takes more than {bounds.seconds:.0f} s to read") from None
    except ProcessFailed as error:
        raise Unavailable(f"{what} could not be read: {error}") from error
    if refusal:
        raise Invalid(refusal.decode())
    if limits.nodes <= _FEW:
        return json.loads(data)
    return json.loads(data, object_pairs_hook=_object, parse_int=_integer)


# Functions in Python, between which other threads can have the interpreter: without them, a document is one
# call of C.
def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs)


def _integer(digits: str) -> int:
    return int(digits)


def answer(data: bytes, size: str, depth: str, nodes: str, what: str) -> bytes:
    """Why the document is refused; empty if it is not."""
    try:
        strictjson.loads(data, strictjson.JsonLimits(int(size), int(depth), int(nodes)), what)
    except Invalid as error:
        return error.message.encode("utf-8", "replace")
    return b""
