"""The process of an engine that runs on this machine, found by its listening socket (on Linux).

The process shows facts that an engine does not report: the working directory, from which relative paths
start, and the start time. Another process may listen in its place (a tunnel, a load balancer, a container's
proxy), so a process counts as the engine only if it started when the engine reports, or its command names the
engine's model.

Each `find` asks the kernel for the listening sockets, which shows another process that begins to listen in
front of the engine. If only the list of all sockets is available, which can have many thousands, a process
that was found before is confirmed by its descriptor of the socket, and the list is read once a minute.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Collection, Iterable
from dataclasses import field
from pathlib import Path
from urllib.parse import urlsplit

from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.listening_sockets import ListeningSocket, listed_sockets, listening_now

_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
_ANY = {"0.0.0.0", "::"}
_TOLERANCE = 1.0  # seconds
_FULL_FIND = 60.0  # seconds
_START_FIELD = 19  # index among the fields after the program's name in /proc/PID/stat


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """A process: its working directory, and the words of its command. `start` identifies this start of it:
    the id of the machine's boot, the process's id, and its start since the boot in clock ticks. It stays the
    same when the machine's clock is set, unlike `started_at` (Unix time), which the kernel computes from that
    clock. Processes with the same `start` are equal: a process can change its command and its folder."""

    id: int
    start: str
    started_at: float = field(compare=False)
    folder: Path = field(compare=False)
    words: tuple[str, ...] = field(compare=False)

    def is_engine(self, started_at: float | None, models: Collection[str]) -> bool:
        """Whether this is the process of the engine that reports this start time, or, if the engine reports
        none, of the engine that serves `models`.
        """
        if started_at is not None:
            return abs(self.started_at - started_at) < _TOLERANCE
        return any(word == name or word.endswith(f"={name}") for word in self.words for name in models)


@dataclass(frozen=True, slots=True)
class _Listener:
    """A process, and its descriptor of the listening socket: a link to `socket`."""

    process: EngineProcess
    descriptor: Path
    socket: str

    def is_there(self) -> bool:
        """Whether the process still runs and has the socket open."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            is_open = str(self.descriptor.readlink()) == self.socket
            return is_open and _start(self.process.id) == self.process.start
        return False


class EngineProcessFinder:
    """Finds the process that listens at an engine's `url`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._found: _Listener | None = None
        self._found_at = -math.inf
        self._addresses: set[str] = set()
        self._sockets: list[str] = []

    def find(self) -> EngineProcess | None:
        """Finds the process; None if it runs on another machine, in another container or as another user, or
        if the system has no `/proc`."""
        is_recent = time.monotonic() - self._found_at < _FULL_FIND
        if not is_recent:
            self._addresses, self._found_at = _local_addresses(self._host), time.monotonic()
        now = listening_now()
        is_known = is_recent and self._found is not None and self._found.is_there()
        if now is None and is_known:
            return self._found.process if self._found else None
        sockets = _listening(listed_sockets() if now is None else now, self._addresses, self._port)
        if not (is_known and sockets == self._sockets):
            self._found, self._sockets = _oldest_listener(sockets), sockets
        return self._found.process if self._found else None

    def forget(self) -> None:
        """Makes the next `find` read the host's sockets again."""
        self._found = None


def _local_addresses(host: str) -> set[str]:
    """The host's addresses that belong to this machine: a socket can be bound to them."""
    found = set()
    with contextlib.suppress(OSError, UnicodeError):
        for family, kind, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, kind) as probe:
                probe.bind(address)
                found.add(str(address[0]))
    return found


def _listening(found: Iterable[ListeningSocket], addresses: Collection[str], port: int) -> list[str]:
    """The ids of the sockets of `found` that get connections to the port at these addresses. A socket that is
    bound to the address comes before one that is bound to all addresses."""
    bound = [(address, inode) for address, on_port, inode in found if on_port == port]
    exact = [inode for address, inode in bound if address in addresses]
    return exact or ([inode for address, inode in bound if address in _ANY] if addresses else [])


def _oldest_listener(sockets: Collection[str]) -> _Listener | None:
    """The process that has one of the sockets open; among a process and its forks, the first one."""
    links = {f"socket:[{inode}]" for inode in sockets}
    if not links:
        return None
    found = [one for id in _process_ids() if (one := _listener(id, links))]
    return min(found, key=lambda one: one.process.started_at, default=None)


def _process_ids() -> list[int]:
    with contextlib.suppress(OSError):
        return [int(path.name) for path in _PROC.iterdir() if path.name.isdigit()]
    return []


def _listener(id: int, links: Collection[str]) -> _Listener | None:
    """The process, if it has a descriptor of one of the sockets. None if it has none, has ended, belongs to
    another user, or sees other folders than this process."""
    with contextlib.suppress(OSError):
        for descriptor in (_PROC / str(id) / "fd").iterdir():
            with contextlib.suppress(OSError):
                if (link := str(descriptor.readlink())) in links:
                    process = _read_process(id)
                    return _Listener(process, descriptor, link) if process else None
    return None


def _read_process(id: int) -> EngineProcess | None:
    """The process; None if it has ended, belongs to another user, or sees other folders than this process."""
    folder = _PROC / str(id)
    with contextlib.suppress(OSError, ValueError, IndexError):
        if any(
            (folder / path).readlink() != (_PROC / "self" / path).readlink() for path in ("ns/mnt", "root")
        ):
            return None
        words = (folder / "cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")
        return EngineProcess(id, _start(id), _started_at(id), (folder / "cwd").readlink(), tuple(words[:-1]))
    return None


def _start(id: int) -> str:
    """Like `EngineProcess.start`. Raises the errors of `_start_ticks`."""
    return f"{_BOOT_ID.read_text().strip()} {id} {_start_ticks(id)}"


def _start_ticks(id: int) -> int:
    """The process's start in clock ticks. Raises `OSError` if there is no such process, `ValueError` and
    `IndexError` for an unknown format.
    """
    fields = (_PROC / str(id) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[_START_FIELD])


def _started_at(id: int) -> float:
    """The start as Unix time, by the machine's current clock. Raises the errors of `_start_ticks`."""
    lines = (_PROC / "stat").read_text().splitlines()
    booted = next(float(line.split()[1]) for line in lines if line.startswith("btime "))
    return booted + _start_ticks(id) / os.sysconf("SC_CLK_TCK")
