"""The sockets that accept TCP connections in this network namespace (Linux).

The kernel lists the listening sockets alone, however many connections a host has, to a netlink socket
(`sock_diag(7)`). If that is not allowed, `/proc/net/tcp` lists all sockets.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_PROC_NET = Path("/proc/net")
_LISTENING = "0A"
_SOCK_DIAG = 4  # linux/netlink.h: NETLINK_SOCK_DIAG
_BY_FAMILY = 20  # linux/sock_diag.h: SOCK_DIAG_BY_FAMILY
_REQUEST_DUMP = 0x301  # linux/netlink.h: NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3  # linux/netlink.h: NLMSG_ERROR, NLMSG_DONE
_LISTEN_ONLY = 1 << 10  # TCP_LISTEN
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ANSWER = struct.Struct("!4xH2x16s")  # in struct inet_diag_msg: the source's port and address
_INODE_AT = 68  # in struct inet_diag_msg
_SECONDS = 5.0

ListeningSocket = tuple[str, int, str]
"""Address, port, and the number of the socket's inode."""


def listening_now() -> list[ListeningSocket] | None:
    """The listening sockets by netlink; None if the kernel does not answer the query."""
    try:
        return [one for family in (socket.AF_INET, socket.AF_INET6) for one in _dump(family)]
    except (OSError, AttributeError, struct.error):  # AttributeError: not Linux
        return None


def listed_sockets() -> Iterator[ListeningSocket]:
    """The listening sockets in `/proc/net`, which also lists all other sockets."""
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError):
            for line in (_PROC_NET / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING:
                    address, _, port = fields[1].partition(":")
                    yield _address_text(family, address), int(port, 16), fields[9]


def _dump(family: socket.AddressFamily) -> Iterator[ListeningSocket]:
    """Queries the kernel for the sockets. Raises `OSError`."""
    body = struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, 0, 0, _LISTEN_ONLY)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as kernel:
        kernel.settimeout(_SECONDS)
        kernel.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + body)
        while True:
            answer, at = kernel.recv(1 << 16), 0
            while at < len(answer):
                size, kind, *_ = _HEADER.unpack_from(answer, at)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError("the kernel does not list its listening sockets")
                start = at + _HEADER.size
                port, address = _ANSWER.unpack_from(answer, start)
                (inode,) = struct.unpack_from("=I", answer, start + _INODE_AT)
                length = 4 if family == socket.AF_INET else 16
                yield socket.inet_ntop(family, address[:length]), port, str(inode)
                at += (size + 3) // 4 * 4


def _address_text(family: socket.AddressFamily, written: str) -> str:
    """An address as the kernel writes it: words of four bytes, each in the machine's order."""
    words = [int(written[at : at + 8], 16) for at in range(0, len(written), 8)]
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))
