"""A hostile client, run as a separate process: it sends prepared requests while it is allowed to.

It uses little processor time and runs at the lowest priority, so that an honest client is delayed only by the
server's work. Each line on standard input is a command: `go` or `pause`. When it ends, it prints the number
of responses by status. Standard library only.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import pickle
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HostileRequest:
    """One request. If it breaks off, only half of its body is sent, and no response is awaited."""

    method: str
    path: str
    body: bytes = b""
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    breaks_off: bool = False


def attack(host: str, port: int, token: str, requests: list[HostileRequest], pause: float) -> Counter[str]:
    """Sends the requests in turn, `pause` seconds apart, until standard input ends."""
    may_send, is_over = threading.Event(), threading.Event()

    def obey() -> None:
        for line in sys.stdin:
            (may_send.set if line.strip() == "go" else may_send.clear)()
        is_over.set()
        may_send.set()

    threading.Thread(target=obey, daemon=True).start()
    answers: Counter[str] = Counter()
    connection = http.client.HTTPConnection(host, port, timeout=120)
    for request in itertools.cycle(requests):
        may_send.wait()
        if is_over.wait(pause):
            return answers
        answers[_sent(connection, token, request)] += 1
    return answers


def _sent(connection: http.client.HTTPConnection, token: str, request: HostileRequest) -> str:
    """The status of the response, or the reason why there is none."""
    connection.putrequest(request.method, request.path)
    sent = {"Authorization": f"Bearer {token}", "Content-Type": request.kind, **dict(request.headers)}
    for name, value in sent.items():
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(request.body)))
    connection.endheaders(request.body[: len(request.body) // 2] if request.breaks_off else request.body)
    if request.breaks_off:
        connection.close()
        return "broken off"
    answer = connection.getresponse()
    answer.read()
    return str(answer.status)


def main() -> None:
    host, port, token, requests, pause = sys.argv[1:]
    # Real attackers use other machines; here they get only idle processor time.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    answers = attack(host, int(port), token, pickle.loads(Path(requests).read_bytes()), float(pause))
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
