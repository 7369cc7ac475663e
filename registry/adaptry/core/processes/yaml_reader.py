"""Reads YAML of strangers: a long text in a child process, within bounds on time and memory, one at a time.

PyYAML makes its values in Python, so a long text would compete with everything else in the caller's process
for the interpreter.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from adaptry.core.errors import Invalid, Unavailable
from adaptry.core.plain_yaml import SHORT, loads_in_process
from adaptry.core.processes.bounded import ProcessFailed, ProcessLimits, ProcessTimeout, run_bounded
from adaptry.core.processes.slots import ProcessSlots

_BOUNDS = ProcessLimits(4.0, 512 << 20, answer=4 << 20)
_SLOTS = ProcessSlots(running=1, waiting=4)
_REFUSED, _READ = b"!", b"="


def loads(text: str, what: str) -> Any:
    """As `plain_yaml.loads_in_process`. (`Any`: YAML has no type.)

    Raises `Invalid`, and `Unavailable` if no process can be started, it crashed, or too many callers wait for
    one.
    """
    if len(text) <= SHORT:
        return loads_in_process(text, what)
    data = text.encode("utf-8", "surrogatepass")
    try:
        with _SLOTS.acquire("long YAML texts"):
            answer = run_bounded(
                "adaptry.core.processes.yaml_reader", data, _BOUNDS, arguments=[what], needs_packages=True
            )
    except ProcessTimeout:
        raise Invalid(f"{what} takes more than {_BOUNDS.seconds:.0f} s to read") from None
    except ProcessFailed as error:
        raise Unavailable(f"{what} could not be read: {error}") from error
    if answer.startswith(_REFUSED):
        raise Invalid(answer[1:].decode())
    return json.loads(answer[1:])


def main() -> None:
    text = sys.stdin.buffer.read().decode("utf-8", "surrogatepass")
    try:
        answer = _READ + json.dumps(loads_in_process(text, sys.argv[1])).encode()
    except Invalid as error:
        answer = _REFUSED + error.message.encode("utf-8", "replace")
    sys.stdout.buffer.write(answer)


if __name__ == "__main__":
    main()
