"""`GuardedConnector`: one request to an address that another party chose, within limits of size and time.

The name is resolved once, all of its addresses must be allowed, and the connection goes to one of these: if
the name resolves differently later (DNS rebinding), that has no effect. There are no redirects, no proxies
and no credentials from the environment. Certificates are verified for the name.

The socket is opened here and given to the standard library's HTTP client, so there is no second look-up.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse

from adaptry.core.errors import Invalid, Unavailable
from adaptry.core.http import tls_context
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.outgoing_requests.addresses import Address, Network, is_inside, is_public
from adaptry.core.outgoing_requests.url import OutgoingUrl

_PIECE = 1 << 16


class OutgoingRefused(Invalid):
    """The server may not connect to that address. Its operator can allow networks."""


@dataclass(frozen=True, slots=True)
class OutgoingResponse:
    """A response with any status. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class GuardedConnector:
    """`request` sends one request. Safe to use from many threads.

    `allowed` are networks that may be connected to although they are not public; plain http is permitted only
    there. An answer of more than `max_bytes` is refused, and the whole exchange ends after `seconds`.
    """

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        seconds: float = 10.0,
        max_bytes: int = 1 << 20,
        ca_bundle: str | None = None,
    ) -> None:
        """Raises `Invalid` if the certificates of `ca_bundle` (a file or folder) cannot be read."""
        self._allowed = tuple(allowed)
        self._seconds, self._max_bytes = seconds, max_bytes
        self._tls = tls_context(ca_bundle) if ca_bundle else ssl.create_default_context()

    def request(
        self, method: str, url: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> OutgoingResponse:
        """Sends a request; returns responses of any status, including redirects. Raises `Invalid` for a
        malformed URL, `OutgoingRefused`, and `Unavailable` if there is no complete response in time. Public
        messages contain neither addresses nor reasons, so that they reveal nothing about the server's
        network.
        """
        where, deadline = OutgoingUrl.parse(url), time.monotonic() + self._seconds
        addresses = self._resolve(where, deadline)
        try:
            with closing(_connect(addresses, where.port, deadline)) as opened, _ended_at(opened, deadline):
                sock = self._tls.wrap_socket(opened, server_hostname=where.host) if where.is_https else opened
                with closing(HTTPConnection(where.host, where.port)) as connection:
                    connection.sock = sock
                    sent = {"Accept-Encoding": "identity", "Connection": "close", **(headers or {})}
                    connection.request(method, where.target, body, sent)
                    with closing(connection.getresponse()) as response:
                        return self._read(response, deadline)
        except (OSError, HTTPException, ValueError) as error:
            late = time.monotonic() >= deadline
            raise _unavailable(
                where, f"no answer within {self._seconds:g} s" if late else _error_text(error)
            ) from error

    def _resolve(self, where: OutgoingUrl, deadline: float) -> list[Address]:
        """Looks up the host. Raises `OutgoingRefused` if any of its addresses is not allowed, since any of
        them may be used.
        """
        addresses = _look_up(where, deadline)
        for address in addresses:
            if is_inside(address, self._allowed):
                continue
            if not is_public(address):
                raise OutgoingRefused(
                    f"refused to connect to {where.host}: {address} is not a public address (the server's"
                    " operator can allow its network: adaptry serve --allow-outgoing)",
                    public_message=f"the server may not connect to {where.host}: it is not a public address;"
                    " its operator can allow it with adaptry serve --allow-outgoing",
                )
            if not where.is_https:
                raise OutgoingRefused(f"refused to send a request to {where.host} by plain http; use https")
        return addresses

    def _read(self, response: HTTPResponse, deadline: float) -> OutgoingResponse:
        pieces, size = [], 0
        while piece := response.read1(_PIECE):
            size += len(piece)
            if size > self._max_bytes:
                raise ValueError(f"the answer has more than {self._max_bytes} bytes")
            pieces.append(piece)
        if time.monotonic() >= deadline:  # the connection may have been cut before the end
            raise TimeoutError
        if response.length:  # bytes that were announced, and are missing
            raise ValueError("the answer ended early")
        headers = {name.lower(): value for name, value in response.getheaders()}
        return OutgoingResponse(response.status, headers, b"".join(pieces))


def _look_up(where: OutgoingUrl, deadline: float) -> list[Address]:
    """The addresses of the host, in the resolver's order. Raises `Unavailable`."""
    found: list[Address] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
            found.extend(ipaddress.ip_address(answer[4][0]) for answer in answers)
        except (OSError, ValueError) as error:  # ValueError: a name that IDNA cannot encode
            errors.append(error)

    # The system's resolver has no deadline.
    asking = threading.Thread(target=ask, daemon=True, name="adaptry-resolver")
    asking.start()
    asking.join(max(0.0, deadline - time.monotonic()))
    if errors or asking.is_alive() or not found:
        raise _unavailable(where, _error_text(errors[0]) if errors else "its name was not resolved in time")
    return list(dict.fromkeys(found))


def _connect(addresses: Sequence[Address], port: int, deadline: float) -> socket.socket:
    """A connection to the first address that accepts one. Raises `OSError`."""
    refused: OSError = TimeoutError()
    for address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            return socket.create_connection((str(address), port), timeout=left)
        except OSError as error:
            refused = error
    raise refused


@contextmanager
def _ended_at(opened: socket.socket, deadline: float) -> Iterator[None]:
    """Closes the connection at the deadline: a socket's timeout applies to each call, not to all together."""
    held = opened.dup()  # TLS takes over the other socket

    def cut() -> None:
        with suppress(OSError):
            held.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        held.close()


def _unavailable(where: OutgoingUrl, why: str) -> Unavailable:
    return Unavailable(
        f"{where.host} did not answer: {why}", public_message=f"{where.host} did not answer; try again later"
    )


def _error_text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
