"""A TCP proxy that injects connection faults between a client and a server, for tests.

`with run_proxy(FaultProxy(host, port)) as proxy:` listens on `proxy.port` of this machine and forwards bytes
until a `ProxyFault` is armed. The fault happens once `after` bytes have passed in its direction on a
connection, old or new, since it was armed, and as many times as requested. `http_fault_proxy` does the
same at the level of HTTP messages.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import Literal, TypeVar

from adaptry.core.lazy_dataclass import dataclass

PIECE = 1 << 16

FaultKind = Literal["refuse", "reset", "close", "blackhole", "delay", "slow"]
FaultDirection = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class ProxyFault:
    """`refuse` a new connection; `reset` or `close` both ends of one; forward nothing more (`blackhole`);
    `delay` a chunk by `seconds`; forward it `slow`ly, at `rate` bytes per second. `up` is the direction to
    the server.
    """

    kind: FaultKind
    direction: FaultDirection = "down"
    after: int = 0
    seconds: float = 0.2
    rate: float = 1 << 16


class FaultProxy:
    """The proxy, for any thread. `fault_count`: injected faults; `connections`: accepted connections."""

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        """May be set to another server; open connections keep theirs."""
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
        """Injects this fault from now on, `times` times, or until `disarm`."""
        with self._lock:
            self._fault, self._left = fault, times

    def disarm(self) -> None:
        """Injects no more faults. Connections that a fault has hit stay broken."""
        with self._lock:
            self._fault = None

    def reset_connections(self) -> None:
        """Resets every connection that is open now."""
        done = Event()
        self._loop.call_soon_threadsafe(self._reset_all, done)
        done.wait()

    def run(self, is_ready: Event) -> None:
        """Serves in the calling thread until `stop`."""
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
                await self._handle_connection(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            reset(writer)
        finally:
            self._tasks.discard(task)
            self._open.discard(writer)
            writer.close()

    async def _handle_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both sides have ended it."""
        from_server, to_server = await asyncio.open_connection(*self.upstream)
        self._open.add(to_server)
        try:
            await asyncio.gather(
                self._forward(reader, to_server, writer, "up"),
                self._forward(from_server, writer, to_server, "down"),
            )
        finally:
            self._open.discard(to_server)
            to_server.close()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        to: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        direction: FaultDirection,
    ) -> None:
        armed, passed = self._fault, 0
        try:
            while data := await reader.read(PIECE):
                if self._fault is not armed:
                    armed, passed = self._fault, 0
                if (
                    armed
                    and armed.direction == direction
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
        """Whether to inject a fault of that kind now; counts it if so."""
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
    """Runs the proxy for the block."""
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
    """Closes a connection with a TCP reset, as a crash does."""
    known = writer.get_extra_info("socket")
    if known is not None and known.fileno() >= 0:
        known.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _send(to: asyncio.StreamWriter, data: bytes) -> None:
    to.write(data)
    await to.drain()
