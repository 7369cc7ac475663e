"""HTTP to one server: requests, responses, streams in both directions.

All connection errors are `Unavailable`, with the server's address. If a response is lost, only idempotent
calls are repeated. If the connection could not be made, any call is repeated, since the server did not
receive it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from urllib.parse import quote, urlencode, urljoin, urlsplit

import urllib3
from pydantic import TypeAdapter
from urllib3.exceptions import HTTPError, LocationParseError, ProxyError, ReadTimeoutError, SSLError

from adaptry import __version__
from adaptry.core.errors import AdaptryError, Invalid, NotFound, TooLarge, Unavailable
from adaptry.core.http import discard_response, is_cut_in_head, plain_reason
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry import protocol
from adaptry.registry.http import responses

Answer = TypeVar("Answer")
Query = Mapping[str, str | int | float | tuple[str, ...] | None]
"""Query parameters; a list becomes repeated parameters, None is omitted."""

CONNECT_SECONDS = 10.0
SEND_SECONDS = 60.0
"""Seconds that a server may read nothing of a body: an upload may wait 45 seconds for a slot."""
READ_SECONDS = 60.0
VERIFY_SECONDS = 900.0
"""Seconds that a server may be silent while it verifies or admits an upload."""
_SEND_BYTES = 128 << 10
"""Bytes per piece: urllib3 copies a piece to frame it, and one of this size stays in the processor's cache,
which is four times as fast as 1 MiB.
"""

_REDIRECT = 302
_BYTES = "application/octet-stream"


class _SingleRetry(urllib3.Retry):
    """Asks a server that is silent only once more, in case an idle connection was dropped on the way: each
    time waits for as long, and a worker does nothing else meanwhile."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: urllib3.connectionpool.ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        is_silent = isinstance(error, ReadTimeoutError)
        if error and is_silent and any(isinstance(one.error, ReadTimeoutError) for one in self.history):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


_REPEATED = _SingleRetry(
    total=4,
    redirect=False,
    allowed_methods=None,
    status_forcelist=(502, 503, 504),
    raise_on_status=False,
    backoff_factor=0.1,
    respect_retry_after_header=False,
)
_ONCE = urllib3.Retry(total=3, connect=3, read=0, status=0, other=0, redirect=False, backoff_factor=0.1)


def api_path(*parts: str) -> str:
    """A path under the API's prefix; every part is one segment, whatever it contains.

    Raises `NotFound` for parts that a URL cannot contain, since no object on a server has such a name.
    """
    for part in parts:
        if part in ("", ".", ".."):
            raise NotFound(f"no object is called {'/'.join(parts)[:200]!a}")
    return "/".join([protocol.PREFIX, *(quote(part, safe=":") for part in parts)])


@dataclass(frozen=True, slots=True)
class Connection:
    """A server's address, the token for it, and the sockets to it."""

    url: str
    token: str | None
    pool: urllib3.PoolManager

    def request_value(self, kind: TypeAdapter[Answer], method: str, path: str, **options: Any) -> Answer:
        """The response as a value. The options are those of `request_bytes`."""
        return responses.parse_response(kind, self.request_bytes(method, path, **options), self.url)

    def request_bytes(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool | None = None,
        timeout: float = READ_SECONDS,
    ) -> bytes:
        """The body of the response to a request with `body` as JSON, or with the bytes `data`. `again`:
        whether the call is idempotent (by default only GET).
        """
        content = data if body is None else json.dumps(body).encode()
        kind = {} if content is None else {"Content-Type": _BYTES if body is None else "application/json"}
        response = self._request(
            method,
            path + _query(query),
            content,
            {**kind, **(headers or {})},
            again=method == "GET" if again is None else again,
            timeout=timeout,
        )
        return self._whole(response)

    def upload(
        self,
        kind: TypeAdapter[Answer],
        path: str,
        chunks: Iterable[bytes],
        headers: Mapping[str, str],
        length: int | None = None,
    ) -> Answer:
        """Streams `chunks`. `length`, if given, is their total size in bytes. If the iterator raises an
        error, the preceding chunks are sent before the error is raised.
        """
        source = _Source(chunks, length)
        sent = {"Content-Type": _BYTES, **headers}
        if length is not None:
            sent["Content-Length"] = str(length)
        try:
            response = self._request("PATCH", path, source, sent, again=False, timeout=VERIFY_SECONDS)
        except _SendInterrupted:
            assert source.failure is not None
            raise source.failure from None
        body = self._whole(response)
        if source.failure is not None:
            raise source.failure
        return responses.parse_response(kind, body, self.url)

    def download(self, path: str, start: int) -> Iterator[bytes]:
        """A file from `start` on, in pieces of at most 1 MiB. The status is checked before this returns."""
        if start < 0:
            raise Invalid(f"a file cannot be read from {start}")
        headers = {"Range": f"bytes={start}-"} if start else {}
        response = self._request("GET", path, None, headers, again=True, timeout=READ_SECONDS, may_end=True)
        if response.status == _REDIRECT:
            response = self._elsewhere(response, headers)
        if response.status == 416:
            body = self._whole(response)
            if response.headers.get("Content-Range") == f"bytes */{start}":
                return iter(())  # the end, exactly
            raise responses.parse_error(response.status, response.headers, body, self.url)
        if start and response.status != 206:
            discard_response(response)
            raise Unavailable(f"{self.url} cannot resume in the middle of a file; is a proxy in between?")
        return self._pieces(response)

    def _elsewhere(
        self, response: urllib3.BaseHTTPResponse, headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse:
        """The response of the bucket to which the server redirects readers. It gets no token: the URL is
        enough.
        """
        address = urljoin(self.url, response.headers.get("Location", ""))
        self._whole(response)
        if not address.startswith(("https://", "http://") if self.url.startswith("http://") else "https://"):
            raise Unavailable(f"{self.url} redirects to an address without encryption; it is not followed")
        where = urlsplit(address).netloc
        try:
            found = self.pool.request(
                "GET",
                address,
                headers={"Accept-Encoding": "identity", **headers},
                retries=_REPEATED,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError) as error:
            raise Unavailable(
                f"cannot reach {where}, to which {self.url} redirects:"
                f" {plain_reason(getattr(error, 'reason', None) or error)}"
            ) from error
        if found.status not in (200, 206):
            discard_response(found)
            raise Unavailable(f"{where}, to which {self.url} redirects, answered {found.status}")
        return found

    def _pieces(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            while piece := response.read(protocol.CHUNK, decode_content=False):
                yield piece
        except (HTTPError, OSError) as error:
            raise Unavailable(
                f"the connection to {self.url} broke in the middle of a file ({error})"
            ) from error
        finally:
            # Only a connection whose response was read completely can be reused.
            if response.length_remaining == 0:
                response.release_conn()
            else:
                discard_response(response)

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[memoryview] | None,
        headers: Mapping[str, str] | None,
        *,
        again: bool,
        timeout: float,
        may_end: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """A successful response (or 416, if `may_end`), whose body has not been read yet."""
        sent = {
            "User-Agent": f"adaptry/{__version__}",
            "Accept": f"application/json, {protocol.PROBLEM}",
            "Accept-Encoding": "identity",
            **protocol.versions(),
            **(headers or {}),
        }
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        kind = sent.get("Content-Type")
        try:
            response = self.pool.request(
                method,
                self.url + path,
                body=cast(Iterable[bytes], body),  # any buffer works
                headers=sent,
                retries=_REPEATED if again else _ONCE,
                # In urllib3, `connect` also limits how long a piece of the body may wait to be sent.
                timeout=urllib3.Timeout(
                    connect=SEND_SECONDS if kind == _BYTES else CONNECT_SECONDS, read=timeout
                ),
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from error
        if is_cut_in_head(response):
            discard_response(response)
            raise Unavailable(f"the connection to {self.url} broke while it answered")
        if response.status < 300 or (may_end and response.status in (_REDIRECT, 416)):
            try:
                protocol.check_server(response.headers, self.url)
            except AdaptryError:
                discard_response(response)
                raise
            return response
        raise responses.parse_error(response.status, response.headers, self._whole(response), self.url)

    def _whole(self, response: urllib3.BaseHTTPResponse) -> bytes:
        try:
            return response.read(decode_content=False)
        except (HTTPError, OSError) as error:
            raise Unavailable(f"the connection to {self.url} broke while it answered ({error})") from error
        finally:
            response.release_conn()

    def _unreachable(self, error: Exception) -> Unavailable | Invalid:
        cause = getattr(error, "reason", None) or error
        match cause:
            case SSLError() if "WRONG_VERSION_NUMBER" in str(cause):
                return Unavailable(
                    f"{self.url} does not use TLS: if the server has no certificate, write http:// instead of"
                    " https://"
                )
            case SSLError():
                return Unavailable(
                    f"cannot trust {self.url}: {cause} (ADAPTRY_CA_BUNDLE names the certificates to trust)"
                )
            case ProxyError():
                return Unavailable(
                    f"cannot reach {self.url} through the proxy: {plain_reason(cause.original_error)}"
                    " (HTTPS_PROXY, NO_PROXY)"
                )
            case LocationParseError():
                return Invalid(f"not a server's address: {self.url[:200]!r}")
            case _:
                return Unavailable(f"cannot reach {self.url}: {plain_reason(cause)}; is the server running?")


class _SendInterrupted(Exception):
    """The body cannot be sent with its announced length, so the connection is closed."""


class _Source:
    """Chunks to send. If their source raises an error, it is stored, so that a request without an announced
    `length` can still end properly.
    """

    def __init__(self, chunks: Iterable[bytes], length: int | None) -> None:
        self.chunks = chunks
        self.length = length
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[memoryview]:
        try:
            for chunk in self._of_length():
                whole = memoryview(chunk)
                for at in range(0, len(whole), _SEND_BYTES):  # never an empty piece, which would end the body
                    yield whole[at : at + _SEND_BYTES]
        except Exception as error:
            self.failure = error
            if self.length is not None:
                raise _SendInterrupted from error

    def _of_length(self) -> Iterator[bytes]:
        """The chunks. Raises `TooLarge` or `Unavailable` if they are longer or shorter than announced."""
        sent = 0
        for chunk in self.chunks:
            sent += len(chunk)
            if self.length is not None and sent > self.length:
                raise TooLarge("more bytes than the upload announced; the file may have changed")
            yield chunk
        if self.length is not None and sent < self.length:
            raise Unavailable(f"the file ended after {sent:,} of {self.length:,} bytes; it may have changed")


def _query(query: Query | None) -> str:
    given = {key: value for key, value in (query or {}).items() if value not in (None, ())}
    return f"?{urlencode(given, doseq=True)}" if given else ""
