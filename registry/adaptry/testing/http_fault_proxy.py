"""A fault proxy for HTTP: it injects faults into whole requests and responses, as they occur with real
servers.

A kind of fault is one function and an entry in `HTTP_FAULTS`: it gets the request, may forward it, and sends,
truncates or drops the response. Messages are buffered whole, so endless ones are not supported.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from adaptry.core.lazy_dataclass import dataclass
from adaptry.testing.fault_proxy import FaultProxy, reset

_LIMIT = 1 << 16
_ERROR = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>%b</Code><Message>on purpose</Message></Error>"


@dataclass(frozen=True, slots=True)
class HttpMessage:
    """A request or a response: its head as sent, including the empty line, and its body."""

    head: bytes
    body: bytes

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def data(self) -> bytes:
        return self.head + self.body


Matches = Callable[[HttpMessage], bool]


def _any(request: HttpMessage) -> bool:
    return True


class HttpFaultProxy(FaultProxy):
    """A `FaultProxy` that also injects the faults of `HTTP_FAULTS`, armed by name."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.requests = 0
        self._kind: str | None = None
        self._matches: Matches = _any
        self._times: int | None = None

    def arm_http(self, kind: str, times: int | None = 1, matches: Matches = _any) -> None:
        """Injects this fault into matching requests from now on, `times` times, or until `disarm`."""
        with self._lock:
            self._kind, self._times, self._matches = kind, times, matches

    def disarm(self) -> None:
        super().disarm()
        self._kind = None

    async def _handle_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await _request(reader, writer):
            self.requests += 1
            exchange = HttpExchange(request, self.upstream, reader, writer)
            kind = self._take_http_fault(request)
            if kind is None:
                await exchange.reply(await exchange.forward())
            else:
                await HTTP_FAULTS[kind](exchange)
            if exchange.is_over:
                return

    def _take_http_fault(self, request: HttpMessage) -> str | None:
        with self._lock:
            kind = self._kind
            if kind is None or not self._matches(request):
                return None
            self.fault_count += 1
            if self._times is not None:
                self._times -= 1
                if not self._times:
                    self._kind = None
            return kind


class HttpExchange:
    """One request and its response. `is_over`: the client's connection has ended."""

    def __init__(
        self,
        request: HttpMessage,
        upstream: tuple[str, int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.request = request
        self.is_over = False
        self._upstream = upstream
        self._reader = reader
        self._writer = writer

    async def forward(self, request: HttpMessage | None = None) -> HttpMessage:
        """Forwards the client's request, or `request` instead; returns the server's response."""
        sent = request or self.request
        reader, writer = await asyncio.open_connection(*self._upstream, limit=_LIMIT)
        try:
            writer.write(sent.data)
            return await _answer(reader, sent.method)
        finally:
            writer.close()

    async def forward_half(self) -> None:
        """Sends half of the request to the server, then resets that connection."""
        _, writer = await asyncio.open_connection(*self._upstream)
        writer.write(self.request.data[: len(self.request.data) // 2])
        await writer.drain()
        reset(writer)

    async def reply(self, message: HttpMessage) -> None:
        await self.send(message.head if self.request.method == "HEAD" else message.data)
        if b"connection: close" in message.head.lower():
            self.close()

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def reset(self) -> None:
        self.is_over = True
        reset(self._writer)

    def close(self) -> None:
        self.is_over = True
        self._writer.close()

    async def wait_for_client(self) -> None:
        """Sends nothing until the client gives up."""
        while await self._reader.read(_LIMIT):
            pass
        self.close()


HttpFault = Callable[[HttpExchange], Awaitable[None]]


async def cut_at_once(exchange: HttpExchange) -> None:
    """The connection breaks before the server receives anything."""
    exchange.reset()


async def cut_in_request(exchange: HttpExchange) -> None:
    """The connection breaks when the server has half of the request."""
    await exchange.forward_half()
    exchange.reset()


async def cut_before_answer(exchange: HttpExchange) -> None:
    """The server executes the request, and the answer is lost."""
    await exchange.forward()
    exchange.reset()


async def closed_before_answer(exchange: HttpExchange) -> None:
    """The server executes the request, and the connection is closed without an answer."""
    await exchange.forward()
    exchange.close()


async def cut_in_head(exchange: HttpExchange) -> None:
    answer = await exchange.forward()
    await exchange.send(answer.head[: len(answer.head) // 2])
    exchange.reset()


async def cut_in_body(exchange: HttpExchange) -> None:
    answer = await exchange.forward()
    await exchange.send(answer.head + answer.body[: len(answer.body) // 2])
    exchange.reset()


async def truncated(exchange: HttpExchange) -> None:
    """The body ends half-way, before its announced length."""
    answer = await exchange.forward()
    await exchange.send(answer.head + answer.body[: len(answer.body) // 2])
    exchange.close()


async def shortened(exchange: HttpExchange) -> None:
    """The body and its announced length are halved."""
    answer = await exchange.forward()
    body = answer.body[: len(answer.body) // 2]
    await exchange.reply(HttpMessage(_with_length(answer.head, len(body)), body))


async def corrupted(exchange: HttpExchange) -> None:
    """One bit of the answer's body is flipped."""
    answer = await exchange.forward()
    await exchange.reply(HttpMessage(answer.head, _flipped(answer.body)))


async def corrupted_request(exchange: HttpExchange) -> None:
    """One bit of the request's body is flipped on its way to the server."""
    await exchange.reply(
        await exchange.forward(HttpMessage(exchange.request.head, _flipped(exchange.request.body)))
    )


async def timeless(exchange: HttpExchange) -> None:
    """All times in the answer are malformed."""
    answer = await exchange.forward()
    head = re.sub(rb"(?im)^(date|last-modified):.*?\r$", rb"\1: once\r", answer.head)
    await exchange.reply(HttpMessage(head, re.sub(rb"\d{4}-\d\d-\d\dT", b"once-upon-a", answer.body)))


async def failed(exchange: HttpExchange) -> None:
    await exchange.reply(_refusal(b"500 Internal Server Error", b"InternalError"))


async def failed_after(exchange: HttpExchange) -> None:
    """The server executes the request, and the client gets an error."""
    await exchange.forward()
    await failed(exchange)


async def not_implemented(exchange: HttpExchange) -> None:
    await exchange.reply(_refusal(b"501 Not Implemented", b"NotImplemented"))


async def slow_down(exchange: HttpExchange) -> None:
    await exchange.reply(_refusal(b"503 Service Unavailable", b"SlowDown"))


async def gateway_down(exchange: HttpExchange) -> None:
    """A load balancer answers with a page instead of the server."""
    await exchange.reply(_build_response(b"502 Bad Gateway", b"text/html", b"<html>bad gateway</html>"))


async def done_with_error(exchange: HttpExchange) -> None:
    """Status 200 with an error as body: S3 does this if it begins to answer before it has finished."""
    await exchange.reply(_refusal(b"200 OK", b"InternalError"))


async def someone_elses_page(exchange: HttpExchange) -> None:
    """Status 200 with an unrelated page."""
    await exchange.reply(_build_response(b"200 OK", b"text/html", b"<html>please log in</html>"))


async def twice(exchange: HttpExchange) -> None:
    """The request reaches the server twice, and the client gets the second answer."""
    await exchange.forward()
    await exchange.reply(await exchange.forward())


async def late(exchange: HttpExchange) -> None:
    answer = await exchange.forward()
    await asyncio.sleep(0.2)
    await exchange.reply(answer)


async def trickled(exchange: HttpExchange) -> None:
    """The answer arrives in a hundred pieces."""
    answer = (await exchange.forward()).data
    step = len(answer) // 100 + 1
    for at in range(0, len(answer), step):
        await exchange.send(answer[at : at + step])
        await asyncio.sleep(0.002)


async def swallowed(exchange: HttpExchange) -> None:
    """The request does not reach the server, and the client gets no answer."""
    await exchange.wait_for_client()


async def swallowed_in_body(exchange: HttpExchange) -> None:
    answer = await exchange.forward()
    await exchange.send(answer.head + answer.body[: len(answer.body) // 2])
    await exchange.wait_for_client()


async def garbage(exchange: HttpExchange) -> None:
    """The answer is not HTTP."""
    await exchange.send(b"\x15\x03\x01\x00\x02\x02\x50\r\n\r\n")
    exchange.close()


HTTP_FAULTS: dict[str, HttpFault] = {
    happens.__name__: happens
    for happens in (
        cut_at_once,
        cut_in_request,
        cut_before_answer,
        closed_before_answer,
        cut_in_head,
        cut_in_body,
        truncated,
        shortened,
        corrupted,
        corrupted_request,
        timeless,
        failed,
        failed_after,
        not_implemented,
        slow_down,
        gateway_down,
        done_with_error,
        someone_elses_page,
        twice,
        late,
        trickled,
        swallowed,
        swallowed_in_body,
        garbage,
    )
}


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> HttpMessage | None:
    """The next request of a connection; None at its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    if b"100-continue" in head.lower():
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = b"".join(line for line in head.splitlines(True) if not line.lower().startswith(b"expect:"))
    return HttpMessage(head, await _body(reader, head, is_answer=False))


async def _answer(reader: asyncio.StreamReader, method: str) -> HttpMessage:
    head = await reader.readuntil(b"\r\n\r\n")
    while head.split(b" ", 2)[1].startswith(b"1"):
        head = await reader.readuntil(b"\r\n\r\n")
    if method == "HEAD" or head.split(b" ", 2)[1] in (b"204", b"304"):
        return HttpMessage(head, b"")
    return HttpMessage(head, await _body(reader, head, is_answer=True))


async def _body(reader: asyncio.StreamReader, head: bytes, is_answer: bool) -> bytes:
    """The body as sent, including chunk sizes."""
    fields = _fields(head)
    if b"content-length" in fields:
        return await reader.readexactly(int(fields[b"content-length"]))
    if b"chunked" in fields.get(b"transfer-encoding", b"").lower():
        whole = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            whole += line + await reader.readexactly(size + 2)
            if not size:
                return whole
    return await reader.read() if is_answer else b""


def _fields(head: bytes) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in head.splitlines()[1:] if b":" in line)
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _with_length(head: bytes, length: int) -> bytes:
    kept = (line for line in head.splitlines(True)[:-1] if not line.lower().startswith(b"content-length:"))
    return b"".join(kept) + b"Content-Length: %d\r\n\r\n" % length


def _flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body


def _refusal(status: bytes, code: bytes) -> HttpMessage:
    return _build_response(status, b"application/xml", _ERROR % code)


def _build_response(status: bytes, kind: bytes, body: bytes) -> HttpMessage:
    head = b"HTTP/1.1 %b\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: %b\r\n\r\n" % (status, kind)
    return HttpMessage(_with_length(head, len(body)), body)
