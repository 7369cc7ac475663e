"""Runs an engine in a process and queries it about many adapters, one after another, even if an adapter
crashes it.

The script prints one JSON object per line when it is ready, and one for each adapter. If it ends early or
does not respond in time, that is the result for the current adapter, and a new process continues with the
rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENDS = "the engine ends"
SILENCE_SECONDS = 300


@dataclass(frozen=True)
class Answers:
    """`ready`: what it printed first; `found`: an object for each adapter, in order. (`Any`: JSON.)"""

    ready: dict[str, Any]
    found: list[dict[str, Any]]


def ask(command: Sequence[str | Path], adapters: Sequence[Path]) -> Answers:
    """Runs the command with the adapters as its last arguments, again each time that it ends before the last
    adapter.
    """
    ready: dict[str, Any] = {}
    found: list[dict[str, Any]] = []
    while not ready or len(found) < len(adapters):
        with tempfile.TemporaryFile() as log:
            lines = _lines([*command, *adapters[len(found) :]], log)
            first = next(lines, None)
            assert first is not None, _end_of(log)
            ready = first
            found += lines
            if len(found) < len(adapters):
                found.append({"refused": f"{ENDS}: {_end_of(log)}", "when": "end"})
    return Answers(ready, found)


def _lines(command: Sequence[str | Path], log: Any) -> Iterator[dict[str, Any]]:
    """(`Any`: a binary file; JSON.)"""
    # PYTHONPATH is for our Python, and theirs is a different one.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
    assert process.stdout is not None
    watch = _Watch(process)
    try:
        for line in process.stdout:
            if line.startswith('{"'):
                watch.begin()
                yield json.loads(line)
    finally:
        watch.stop()
        process.kill()
        process.wait()
        process.stdout.close()


def _end_of(log: Any) -> str:
    """The end of the output; the process shares the file's position."""
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), 2000, max(0, size - 2000)).decode(errors="replace")


class _Watch:
    """Kills a process that prints nothing for too long."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.begin()

    def begin(self) -> None:
        if hasattr(self, "timer"):
            self.timer.cancel()
        self.timer = threading.Timer(SILENCE_SECONDS, self.process.kill)
        self.timer.daemon = True
        self.timer.start()

    def stop(self) -> None:
        self.timer.cancel()
