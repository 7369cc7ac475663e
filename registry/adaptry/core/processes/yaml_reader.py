"""Reads untrusted YAML: long texts in a child process with limits on time and memory, two at a time.

PyYAML creates its values in Python, so a long text would compete for the interpreter with everything else in
the caller's process.
"""

from __future__ import annotations

import json
from typing import Any

from adaptry.core.errors import Invalid, Unavailable
from adaptry.core.plain_yaml import SHORT, loads_in_process
from adaptry.core.processes.bounded import ProcessFailed, ProcessLimits, ProcessTimeout
from adaptry.core.processes.slots import ProcessSlots
from adaptry.core.processes.worker_pool import run_in_worker

_BOUNDS = ProcessLimits(4.0, 512 << 20, answer=4 << 20)
_SLOTS = ProcessSlots(running=2, waiting=6)
_REFUSED, _READ = b"!", b"="


def loads(text: str, label: str) -> Any:
    """Like `plain_yaml.loads_in_process`. (`Any`: YAML has no type.)

    Raises `Invalid`, and `Unavailable` if no process can be started, it crashed, or too many callers wait for
    one.
    """
    if len(text) <= SHORT:
        return loads_in_process(text, label)
    data = text.encode("utf-8", "surrogatepass")
    try:
        with _SLOTS.acquire("long YAML texts"):
            answered = run_in_worker("adaptry.core.processes.yaml_reader", data, _BOUNDS, [label])
    except ProcessTimeout:
        raise Invalid(f"{label} takes more than {_BOUNDS.seconds:.0f} s to read") from None
    except ProcessFailed as error:
        raise Unavailable(f"{label} could not be read: {error}") from error
    if answered.startswith(_REFUSED):
        raise Invalid(answered[1:].decode())
    return json.loads(answered[1:])


def answer(data: bytes, what: str) -> bytes:
    """The document as JSON, or the reason why it is refused."""
    try:
        return _READ + json.dumps(loads_in_process(data.decode("utf-8", "surrogatepass"), what)).encode()
    except Invalid as error:
        return _REFUSED + error.message.encode("utf-8", "replace")
