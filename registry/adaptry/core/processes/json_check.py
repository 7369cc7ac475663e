"""Checks a large JSON document in a child process, so that a hostile document delays only its sender.

The child reads the document like `strictjson.loads`, at a lower priority and with limits on time and memory.
A document that passes is unambiguous and has few values, so the standard library then parses it here in a
few milliseconds, during which other threads can run. Standard library only.
"""

from __future__ import annotations

import json
from typing import Any

from adaptry.core import strictjson
from adaptry.core.errors import Invalid, Unavailable
from adaptry.core.processes.bounded import ProcessFailed, ProcessLimits, ProcessTimeout
from adaptry.core.processes.worker_pool import run_in_worker

_MIB = 1 << 20
_MAX_IN_PROCESS = 20_000
"""Values that a single call into C creates in 5 ms. In steps that other threads may interrupt, it takes
twice as long.
"""


def loads_in_child(
    data: bytes, limits: strictjson.JsonLimits, label: str, checker: str = "adaptry.core.processes.json_check"
) -> Any:
    """Like `strictjson.loads`. Raises `Unavailable` if no process can start, or it crashed. (`Any`: JSON.)

    `checker` is the module whose `answer` checks the document; it may be stricter than `answer` here.
    """
    mib = len(data) // _MIB + 1
    arguments = [str(limits.size), str(limits.depth), str(limits.nodes), label]
    bounds = ProcessLimits(4.0 + 2.0 * mib, (256 + 64 * mib) * _MIB)
    try:
        refusal = run_in_worker(checker, data, bounds, arguments)
    except ProcessTimeout:
        raise Invalid(f"{label} takes more than {bounds.seconds:.0f} s to read") from None
    except ProcessFailed as error:
        raise Unavailable(f"{label} could not be read: {error}") from error
    if refusal:
        raise Invalid(refusal.decode())
    if limits.nodes <= _MAX_IN_PROCESS:
        return json.loads(data)
    return json.loads(data, object_pairs_hook=_object, parse_int=_integer)


# Python functions, between which other threads can run. Without them, parsing is a single call into C.
def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs)


def _integer(digits: str) -> int:
    return int(digits)


def answer(data: bytes, size: str, depth: str, nodes: str, what: str) -> bytes:
    """The reason why the document is refused; empty if it is valid."""
    try:
        strictjson.loads(data, strictjson.JsonLimits(int(size), int(depth), int(nodes)), what)
    except Invalid as error:
        return error.message.encode("utf-8", "replace")
    return b""
