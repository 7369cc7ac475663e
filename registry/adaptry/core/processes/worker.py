"""The process of a worker pool: answers requests from a socket, its standard input, until that closes.

A request is a length (4 bytes, big-endian), a JSON object and the bytes to work on; the answer is a length
(8 bytes) and bytes. Each request has its own limits on processor time and address space.

The process stays for the next request, since starting it and importing modules costs several times as much as
most requests. It ends when its input closes (because the process that started it has ended), after `IDLE`
seconds without a request, and after a request that may have left it large. Standard library only.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import resource
import select
import signal
import socket
import time
from typing import Any

IDLE = 30.0
"""Seconds without a request after which a worker ends, with exit code 0."""
_MAX_REQUESTS = 1000
_LARGE_REQUEST = 4 << 20  # bytes of a request, after which the process may have grown large


def serve(requests: socket.socket, target: io.BufferedWriter) -> None:
    """Answers requests until there are no more."""
    stream = io.BufferedReader(socket.SocketIO(requests, "r"))
    gc.disable()  # no cycles arise here, and a collection would visit every value of a large document
    for _ in range(_MAX_REQUESTS):
        if not select.select([requests], [], [], IDLE)[0]:
            return
        head = stream.read(4)
        if len(head) < 4:
            return
        request: dict[str, Any] = json.loads(stream.read(int.from_bytes(head, "big")))  # `Any`: our parent's
        _limit(request["seconds"], request["memory"])
        data = stream.read(request["size"])
        if len(data) < request["size"]:
            return
        answer: bytes = importlib.import_module(request["module"]).answer(data, *request["arguments"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        del data
        target.write(len(answer).to_bytes(8, "big"))
        target.write(answer)
        target.flush()
        if request["size"] > _LARGE_REQUEST:
            return


def _limit(seconds: float, memory: int) -> None:
    """Limits processor time and memory from now on. The kernel's limit on processor time backs up the
    timer.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    _, maximum = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + seconds) + 2, maximum))
    try:
        _, maximum = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (memory, maximum))
    except (OSError, ValueError):
        pass  # the system does not offer it (macOS)


if __name__ == "__main__":
    with socket.socket(fileno=0) as standard_input, open(1, "wb") as standard_output:
        serve(standard_input, standard_output)
