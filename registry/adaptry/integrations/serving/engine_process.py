"""The process of an engine that runs on this machine, found by its listening socket (Linux).

It shows what an engine does not report: its working directory, from which it reads a relative path, and when
it was started. Another process may listen in its place (a tunnel, a load balancer, a container's proxy), so a
process counts as the engine only if it started when the engine reports, or its command names the engine's
model.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from adaptry.core.lazy_dataclass import dataclass

_PROC = Path("/proc")
_LISTENING = "0A"
_ANY = {"0.0.0.0", "::"}
_TOLERANCE = 1.0  # seconds
_START_FIELD = 19  # of the fields after the name of the program in /proc/PID/stat


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """A process: when it was started (Unix time), its working directory, and the words of its command."""

    id: int
    started_at: float
    folder: Path
    words: tuple[str, ...]

    def is_engine(self, started_at: float | None, models: Collection[str]) -> bool:
        """Whether it is the process of the engine that reports this start, or, if it reports none, serves
        `models`."""
        if started_at is not None:
            return abs(self.started_at - started_at) < _TOLERANCE
        return any(word == name or word.endswith(f"={name}") for word in self.words for name in models)


class EngineProcessFinder:
    """Finds the process that listens at an engine's `url`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._sockets: frozenset[str] = frozenset()
        self._found: EngineProcess | None = None

    def find(self) -> EngineProcess | None:
        """None if it runs on another machine, in another container or as another user, or the system has no
        `/proc`."""
        sockets = frozenset(_listening(_local_addresses(self._host), self._port))
        if self._found is None or sockets != self._sockets or not _is_running(self._found):
            self._sockets, self._found = sockets, _oldest_holder(sockets)
        return self._found


def _local_addresses(host: str) -> set[str]:
    """The host's addresses that are this machine's: a socket can be bound to them."""
    found = set()
    with contextlib.suppress(OSError, UnicodeError):
        for family, kind, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, kind) as probe:
                probe.bind(address)
                found.add(str(address[0]))
    return found


def _listening(addresses: Collection[str], port: int) -> list[str]:
    """The ids of the sockets that get connections to the port at these addresses. One that is bound to the
    address comes before one that is bound to all."""
    bound = [(address, inode) for address, on_port, inode in _listening_sockets() if on_port == port]
    exact = [inode for address, inode in bound if address in addresses]
    return exact or ([inode for address, inode in bound if address in _ANY] if addresses else [])


def _listening_sockets() -> Iterator[tuple[str, int, str]]:
    """Address, port and id of each socket that accepts TCP connections in this network namespace."""
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING:
                    address, _, port = fields[1].partition(":")
                    yield _address_text(family, address), int(port, 16), fields[9]


def _address_text(family: socket.AddressFamily, written: str) -> str:
    """An address as the kernel writes it: words of four bytes, each in the machine's order."""
    words = [int(written[at : at + 8], 16) for at in range(0, len(written), 8)]
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))


def _oldest_holder(sockets: Collection[str]) -> EngineProcess | None:
    """The process that has one of the sockets open; of a process and its forks, the first."""
    links = {f"socket:[{inode}]" for inode in sockets}
    if not links:
        return None
    found = [one for id in _process_ids() if _has_open(id, links) and (one := _read_process(id))]
    return min(found, key=lambda one: one.started_at, default=None)


def _process_ids() -> list[int]:
    with contextlib.suppress(OSError):
        return [int(path.name) for path in _PROC.iterdir() if path.name.isdigit()]
    return []


def _has_open(id: int, links: Collection[str]) -> bool:
    folder = _PROC / str(id) / "fd"
    with contextlib.suppress(OSError):  # it has ended, or is another user's
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                if str(path.readlink()) in links:
                    return True
    return False


def _read_process(id: int) -> EngineProcess | None:
    """None if it has ended, is another user's, or sees other folders than this process."""
    folder = _PROC / str(id)
    with contextlib.suppress(OSError, ValueError, IndexError):
        if any(
            (folder / path).readlink() != (_PROC / "self" / path).readlink() for path in ("ns/mnt", "root")
        ):
            return None
        words = (folder / "cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")
        return EngineProcess(id, _started_at(id), (folder / "cwd").readlink(), tuple(words[:-1]))
    return None


def _is_running(process: EngineProcess) -> bool:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return _started_at(process.id) == process.started_at
    return False


def _started_at(id: int) -> float:
    """Raises `OSError` without such a process, `ValueError` and `IndexError` for an unknown format."""
    fields = (_PROC / str(id) / "stat").read_text().rpartition(")")[2].split()
    lines = (_PROC / "stat").read_text().splitlines()
    booted = next(float(line.split()[1]) for line in lines if line.startswith("btime "))
    return booted + int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
