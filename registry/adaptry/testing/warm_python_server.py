"""`python -m adaptry.testing.warm_python_server FD`: imports adaptry and forks for each request on a socket.

A request is a command and its environment, with the three standard streams; the answer is the id of the
process that runs it, once that process is no longer a child of this one.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

IMPORTED = (
    "adaptry.jobs.runner",
    "adaptry.registry.http",
    "adaptry.testing.samples",
    "adaptry_api.serve",
    "adaptry_cli.main",
    "adaptry_cli.work",
)
"""The modules that most test processes import; none loads torch, which would make each fork slower."""
_MAX_REQUEST = 1 << 17


def main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    control = socket.socket(fileno=int(sys.argv[1]))
    assert threading.active_count() == 1, "a library that was imported has started a thread"
    gc.freeze()  # otherwise each fork's garbage collection copies the pages of all imported modules
    while True:
        message, streams, _, _ = socket.recv_fds(control, _MAX_REQUEST, 3)
        if not message:
            return
        if _fork_orphan(control):
            control.close()
            _become(json.loads(message), streams)
            return
        for each in streams:
            os.close(each)


def _fork_orphan(control: socket.socket) -> bool:
    """Whether this is the new process. It continues only after its parent, a fork of the server, has
    ended.
    """
    waits, holds = os.pipe()
    reads, writes = os.pipe()
    middle = os.fork()
    if middle == 0:
        child = os.fork()
        if child:
            os.write(writes, str(child).encode())
            os._exit(0)
        os.close(holds)
        os.read(waits, 1)
        for each in (waits, reads, writes):
            os.close(each)
        return True
    os.waitpid(middle, 0)
    control.send(os.read(reads, 64))
    for each in (waits, holds, reads, writes):
        os.close(each)
    return False


def _become(request: dict[str, Any], streams: list[int]) -> None:
    if request["has_new_session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environ"])
    for own, given in enumerate(streams):
        os.dup2(given, own)
    for given in streams:
        if given > 2:
            os.close(given)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _run(request["words"])


def _run(words: list[str]) -> None:
    first, *rest = words
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = words, str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when its socket closes
    main()
