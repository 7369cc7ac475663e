"""Ports of this machine for servers of other programs, which must be given a port when they start.

If the system chooses a port and it is closed again, another program may take it before a server opens it:
tests run beside each other, and a server takes seconds to start. These ports are outside the range that
systems choose from, and are claimed: no other call gets them, in any process, until this process ends.
"""

from __future__ import annotations

import secrets
import socket

_FIRST, _COUNT = 15_000, 15_000  # Linux chooses from 32768 on, others from 49152 on


def free_ports(count: int) -> list[int]:
    """`count` free ports of 127.0.0.1, claimed for this process."""
    found: list[int] = []
    while len(found) < count:
        port = _FIRST + secrets.randbelow(_COUNT)  # not `random`: tests seed it alike in each process
        if _claim(port):
            found.append(port)
    return found


def _claim(port: int) -> bool:
    """Whether the port is ours now: it is claimed by opening a datagram socket, which servers do not open."""
    claim = socket.socket(type=socket.SOCK_DGRAM)
    try:
        with socket.socket() as probe:
            claim.bind(("127.0.0.1", port))
            probe.bind(("127.0.0.1", port))
    except OSError:
        claim.close()
        return False
    claim.detach()  # open until this process ends
    return True
