"""A proxy that spoils connections on purpose, to stand between us and a server: for tests.

`with between(Proxy(host, port)) as proxy:` listens on `proxy.port` of this machine and passes bytes on, whatever they mean, until
a `Fault` is armed. It strikes once its many bytes have passed one way of a connection since then, one that was open before or
a new one, and as many times as it was armed for. `http_faults` does the same to requests and answers.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Literal, TypeVar

PIECE = 1 << 16

FaultKind = Literal["refuse", "reset", "close", "blackhole", "delay", "slow"]
FaultDirection = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class ProxyFault:
    """`refuse` a new connection; `reset` or `close` both ends of one; pass nothing more (`blackhole`); `delay` a piece by
    `seconds`; pass it `slow`ly, at `rate` bytes a second. The way `up` is to the server.
    """

    kind: FaultKind
    direction: FaultDirection = "down"
    after: int = 0
    seconds: float = 0.2
    rate: float = 1 << 16


class FaultProxy:
    """What stands between; commanded from any thread. `struck` counts what happened, `connections` what was opened."""

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        """May be set to another server's; connections that are open stay where they are."""
        self.port = 0
        self.fault_count = 0
        self.connections = 0
        self._fault: ProxyFault | None = None
        self._left: int | None = None
        self._lock = Lock()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()

    def arm(self, fault: ProxyFault, times: int | None = 1) -> None:
        """From now on this happens, so many times, or until `heal`."""
        with self._lock:
            self._fault, self._left = fault, times

    def disarm(self) -> None:
        """From now on nothing happens to what passes; what was spoiled stays so."""
        with self._lock:
            self._fault = None

    def reset_connections(self) -> None:
        """Resets every connection that is open now."""
        done = Event()
        self._loop.call_soon_threadsafe(self._reset_all, done)
        done.wait()

    def run(self, is_ready: Event) -> None:
        """Serves until `end`, in the thread that calls."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(is_ready))

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)

    async def _serve(self, is_ready: Event) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        is_ready.set()
        await self._ending.wait()
        server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            if self._take_fault("refuse"):
                reset(writer)
            else:
                await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            reset(writer)
        finally:
            self._tasks.discard(task)
            self._open.discard(writer)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both sides have ended it."""
        from_server, to_server = await asyncio.open_connection(*self.upstream)
        self._open.add(to_server)
        try:
            await asyncio.gather(
                self._pass(reader, to_server, writer, "up"),
                self._pass(from_server, writer, to_server, "down"),
            )
        finally:
            self._open.discard(to_server)
            to_server.close()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        to: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        way: FaultDirection,
    ) -> None:
        armed, passed = self._fault, 0
        try:
            while data := await reader.read(PIECE):
                if self._fault is not armed:
                    armed, passed = self._fault, 0
                if (
                    armed
                    and armed.direction == way
                    and passed + len(data) > armed.after
                    and self._take_fault(armed.kind)
                ):
                    before = max(0, armed.after - passed)
                    await _send(to, data[:before])
                    match armed.kind:
                        case "delay":
                            await asyncio.sleep(armed.seconds)
                        case "slow":
                            await asyncio.sleep(len(data) / armed.rate)
                        case "blackhole":
                            while await reader.read(PIECE):
                                pass
                            raise ConnectionResetError
                        case "close":
                            to.close()
                            back.close()
                            return
                        case _:
                            raise ConnectionResetError
                    await _send(to, data[before:])
                else:
                    await _send(to, data)
                passed += len(data)
            to.write_eof()
        except OSError:
            reset(to)
            reset(back)

    def _take_fault(self, kind: FaultKind) -> bool:
        """Whether a fault of that kind happens now; then it has happened."""
        with self._lock:
            if self._fault is None or self._fault.kind != kind:
                return False
            self.fault_count += 1
            if self._left is not None:
                self._left -= 1
                if not self._left:
                    self._fault = None
            return True

    def _reset_all(self, done: Event) -> None:
        for writer in tuple(self._open):
            reset(writer)
        done.set()


AnyProxy = TypeVar("AnyProxy", bound=FaultProxy)


@contextmanager
def run_proxy(proxy: AnyProxy) -> Iterator[AnyProxy]:
    """The proxy, listening, until the block ends."""
    is_ready = Event()
    thread = Thread(target=proxy.run, args=(is_ready,), daemon=True)
    thread.start()
    is_ready.wait()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection as a crash does: the other side learns that something is wrong."""
    known = writer.get_extra_info("socket")
    if known is not None and known.fileno() >= 0:
        known.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _send(to: asyncio.StreamWriter, data: bytes) -> None:
    to.write(data)
    await to.drain()
