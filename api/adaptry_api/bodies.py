"""Request bodies: JSON parsed strictly and within a limit, and streams passed to a function in a thread.

The event loop parses only small documents. Child processes check larger ones, a few at a time. Without a
valid token, only very small bodies are read. A document with many faults is refused without listing them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import anyio
from anyio import from_thread, to_thread
from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope

from adaptry.core import strictjson
from adaptry.core.errors import AdaptryError, TooLarge, Unsupported
from adaptry.core.processes.json_check import loads_in_child
from adaptry.registry import protocol
from adaptry_api import body_pace
from adaptry_api.body_pace import BodyPace
from adaptry_api.body_socket import BODY_SOCKET, BodySocket
from adaptry_api.errors import HttpProblem, WrappedError
from adaptry_api.faults import require_few_faults

Result = TypeVar("Result")

INLINE_PARSE_LIMIT = 16 << 10
"""Largest JSON body in bytes that the event loop parses (at most 4 ms). A child checks larger ones first."""
ANONYMOUS_JSON_LIMIT = 4 << 10
"""Largest JSON body in bytes that is read without a token."""

_READ_AHEAD = 4  # maximum number of chunks queued between the network and the thread
_PIECE = 1 << 20
_VALUES = 20_000
REPORT_VALUES = 60_000
"""Maximum number of values in a worker's report, which lists all its adapters."""


class ParseSlots:
    """The number of documents that a server checks in child processes at once: two of any kind, and one base
    record, which can be large.
    """

    def __init__(self) -> None:
        self.children = anyio.CapacityLimiter(2)
        self.bases = anyio.CapacityLimiter(1)


class StrictRequest(Request):
    """A request that refuses ambiguous JSON (such as duplicate keys) and bodies over `limit` bytes.

    `kind` is the type of the route's body: `json` returns a value of it, so FastAPI validates nothing again.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        parse_slots: ParseSlots,
        limit: int = protocol.JSON_LIMIT,
        values: int = _VALUES,
        kind: TypeAdapter[Any] | None = None,
    ) -> None:
        super().__init__(scope, receive)
        self._limits = strictjson.JsonLimits(size=limit, nodes=values)
        self._parse_slots = parse_slots
        self._kind = kind

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            if self.headers.get("content-length", "0") == "0" and "transfer-encoding" not in self.headers:
                self._body = b""  # the route's body has no type
                return self._body
            try:
                _require_type(self, "application/json")
                self._body = await read_body(self, self._limits.size)
            except AdaptryError as error:
                raise WrappedError(error) from None
        return self._body

    async def json(self) -> Any:
        """The body as a value of the route's type. If it has only a few faults, the unvalidated document,
        whose faults FastAPI reports.

        (`Any`: JSON has no type until a model gives it one.)
        """
        data = await self.body()
        try:
            return await read_json(data, self._limits, self._parse_slots, self._validated)
        except AdaptryError as error:
            raise WrappedError(error) from None

    def _validated(self, document: Any) -> Any:
        if self._kind is None:
            return document
        try:
            return self._kind.validate_python(document)
        except ValidationError as error:
            require_few_faults(error)
            return document


async def read_json(
    data: bytes, limits: strictjson.JsonLimits, parse_slots: ParseSlots, make: Callable[[Any], Result]
) -> Result:
    """The result of `make` for the document in a request's body. A child process checks large documents
    first.

    (`Any`: JSON has no type until a model gives it one.) Raises `Invalid`, `Unavailable`, and the errors of
    `make`.
    """

    if len(data) <= INLINE_PARSE_LIMIT:
        return make(strictjson.loads(data, limits, "the request"))
    return await to_thread.run_sync(
        lambda: make(loads_in_child(data, limits, "the request")), limiter=parse_slots.children
    )


async def read_bytes(request: Request, limit: int) -> bytes:
    """Like `read_body`, for a body of bytes. Raises `Unsupported` for any other content type."""
    _require_type(request, "application/octet-stream")
    return await read_body(request, limit)


async def read_body(request: Request, limit: int) -> bytes:
    """Reads the body. Raises `TooLarge` before more than `limit` bytes are in memory."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise TooLarge(f"the request has {int(announced):,} bytes; this endpoint accepts at most {limit:,}")
    data = bytearray()
    async for chunk in _timely(request):
        data += chunk
        if len(data) > limit:
            raise TooLarge(f"the request has more than {limit:,} bytes, the most that this endpoint accepts")
    return bytes(data)


async def stream_body(
    request: Request,
    into: Callable[[Iterator[bytes]], Result],
    limiter: anyio.CapacityLimiter,
    kind: str | None = "application/octet-stream",
) -> Result:
    """Calls `into` in a thread with the body's bytes as they arrive, reading only a little ahead of it.

    If the connection breaks, the bytes end early: `into` keeps those received. Raises `Unsupported` for a
    compressed body and for a `Content-Type` other than `kind` (None: any), and `HttpProblem` (408), after
    `into` has returned, if the body is too slow.
    """
    _require_type(request, kind)
    with _body_socket(request) as body:
        if body is not None:
            return await _read_from_socket(body, into, limiter)
    return await _read_from_loop(request, into, limiter)


def _body_socket(request: Request) -> AbstractContextManager[BodySocket | None]:
    lend = request.scope.get("extensions", {}).get(BODY_SOCKET)
    found: AbstractContextManager[BodySocket | None] = lend() if lend is not None else nullcontext()
    return found


async def _read_from_socket(
    body: BodySocket, into: Callable[[Iterator[bytes]], Result], limiter: anyio.CapacityLimiter
) -> Result:
    def read() -> Result:
        try:
            return into(body.pieces())
        finally:
            body.close()

    result = await to_thread.run_sync(read, limiter=limiter)
    if body.failure is not None:
        raise body.failure
    return result


async def _read_from_loop(
    request: Request, into: Callable[[Iterator[bytes]], Result], limiter: anyio.CapacityLimiter
) -> Result:
    sender, receiver = anyio.create_memory_object_stream[bytes](_READ_AHEAD)
    outcome: list[Result] = []
    failures: list[Exception] = []

    async def fill() -> None:
        async with sender:
            try:
                async for piece in _coalesced(request):
                    await sender.send(piece)
            except ClientDisconnect:
                return
            except HttpProblem as slow:
                failures.append(slow)

    def drain() -> Iterator[bytes]:
        while True:
            try:
                piece = from_thread.run(receiver.receive)
            except anyio.EndOfStream:
                return
            yield piece

    async with anyio.create_task_group() as group, receiver:
        group.start_soon(fill)
        try:
            outcome.append(await to_thread.run_sync(lambda: into(drain()), limiter=limiter))
        except Exception as error:  # noqa: BLE001  raised below as itself, not in an exception group
            failures.insert(0, error)
        group.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return outcome[0]


async def _coalesced(request: Request) -> AsyncIterator[bytes]:
    """Yields the body in pieces that are so large that handing one over costs little compared with using
    it.
    """
    held: list[bytes] = []
    size = 0
    try:
        async for chunk in _timely(request):
            held.append(chunk)
            size += len(chunk)
            if size >= _PIECE:
                yield b"".join(held)
                held, size = [], 0
    except (ClientDisconnect, HttpProblem):
        yield b"".join(held)  # the received bytes are kept
        raise
    if held:
        yield b"".join(held)


async def _timely(request: Request) -> AsyncIterator[bytes]:
    """Yields the body as it arrives. Raises `HttpProblem` if the sender stalls; the server's own processing
    time is not counted.
    """
    stream, pace = request.stream(), BodyPace()
    while True:
        began = time.monotonic()
        with anyio.move_on_after(body_pace.IDLE_SECONDS) as timeout:
            chunk: bytes | None = b""
            chunk = await anext(stream, None)
        waited = time.monotonic() - began
        if timeout.cancelled_caught:  # measured by the loop's clock, which may be some milliseconds ahead
            waited = max(waited, body_pace.IDLE_SECONDS)
        pace.add(len(chunk or b""), waited)
        if chunk is None:
            return
        if chunk:
            yield chunk


def _require_type(request: Request, kind: str | None) -> None:
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind is not None and sent != kind:
        raise Unsupported(f"the body must be {kind}" + (f", not {sent[:80]!r}" if sent else ""))
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Unsupported("the body must not be compressed; send it uncompressed")
