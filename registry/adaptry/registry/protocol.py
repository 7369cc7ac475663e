"""The protocol between client and server apart from the routes: versions, header names, sizes.

Each side sends the API version that it uses; a server also sends the oldest version that it supports. A
client that is newer than the server, or older than that version, gets `ProtocolMismatch`, with the side to
upgrade. Unknown fields are ignored in responses and refused in requests, so a newer server may return more,
and no option is silently ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adaptry import __version__
from adaptry.core.errors import Invalid, ProtocolMismatch, TooLarge, Unavailable
from adaptry.core.manifest import SCHEMA

API = 1
API_OLDEST = 1
PREFIX = f"/api/v{API}"

API_HEADER = "Adaptry-API"
OLDEST_HEADER = "Adaptry-API-Oldest"
SCHEMA_HEADER = "Adaptry-Manifest-Schema"
OFFSET_HEADER = "Upload-Offset"
SIZE_HEADER = "Upload-Size"
REQUEST_ID_HEADER = "Request-Id"
KEY_HEADER = "Idempotency-Key"
REPLAY_HEADER = "Idempotent-Replay"
PROBLEM = "application/problem+json"

MAX_WAIT = 30.0
"""The maximum time in seconds that one request waits for an event; longer waits use several requests."""

CHUNK = 1 << 20
JSON_LIMIT = 2 << 20
BASE_LIMIT = 64 << 20
"""The maximum size in bytes of a base's record as JSON, which is enough for the largest models."""


def join_parts(parts: Iterable[bytes]) -> bytes:
    """The body of a request with several parts; each is preceded by its length in four bytes (big-endian)."""
    return b"".join(piece for part in parts for piece in (len(part).to_bytes(4, "big"), part))


def split_parts(body: bytes, maximum: int) -> list[bytes]:
    """The parts of `join_parts`. Raises `Invalid`, and `TooLarge` if there are more than `maximum`."""
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        if len(parts) == maximum:
            raise TooLarge(f"the body has more than {maximum} parts, the most that this endpoint accepts")
        start = at + 4
        at = start + int.from_bytes(body[at:start], "big")
        if at > len(body) or start > len(body):
            raise Invalid(
                f"part {len(parts) + 1} of the body is incomplete; send the length of each part before it, in"
                " four bytes (big-endian)"
            )
        parts.append(body[start:at])
    return parts


def versions() -> dict[str, str]:
    """The version headers of every request of our client, and of every response to it."""
    return {API_HEADER: str(API), SCHEMA_HEADER: str(SCHEMA)}


def check_client(headers: Mapping[str, str]) -> None:
    """Checks the version of a request; a client without version headers (curl) is served.

    Raises `ProtocolMismatch`.
    """
    version = _number(headers.get(API_HEADER))
    if version is None:
        return
    if version > API:
        raise ProtocolMismatch(
            f"the client uses API {version}, but this server (adaptry {__version__}) uses API {API}: "
            "upgrade the server, or use an older adaptry here"
        )
    if version < API_OLDEST:
        raise ProtocolMismatch(
            f"the client uses API {version}, but this server (adaptry {__version__}) supports API "
            f"{API_OLDEST} and later: upgrade adaptry where the client runs"
        )


def check_server(headers: Mapping[str, str], url: str) -> None:
    """Checks the version of a response. Raises `ProtocolMismatch`; `Unavailable` if it is not Adaptry's."""
    version, oldest = _number(headers.get(API_HEADER)), _number(headers.get(OLDEST_HEADER))
    if version is None:
        raise Unavailable(
            f"{url} does not answer like an Adaptry server; is the address right, "
            "or does a proxy answer in its place?"
        )
    if version < API:
        raise ProtocolMismatch(
            f"the server at {url} uses API {version}, but this adaptry ({__version__}) needs API {API}: "
            "upgrade the server, or use an older adaptry here"
        )
    if oldest is not None and oldest > API:
        raise ProtocolMismatch(
            f"the server at {url} supports API {oldest} and later, but this adaptry ({__version__}) uses "
            f"API {API}: upgrade adaptry here"
        )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 6 else None
