"""What client and server agree on beside the routes: versions, header names, sizes.

The policy, the same in both directions: a side says the API version it speaks; a server also says the
oldest it still serves. A client that is newer than the server, or older than the server's oldest, gets
`ProtocolMismatch` with a sentence that says which side to upgrade. Fields that one side does not know are
ignored in answers and refused in requests, so a newer server may answer more, and nobody's wish is lost.
"""

from __future__ import annotations

from collections.abc import Mapping

from adaptry import __version__
from adaptry.core.errors import ProtocolMismatch
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
"""Seconds that one request waits for an event; who wants to wait longer asks again."""

CHUNK = 1 << 20
JSON_LIMIT = 2 << 20
BASE_LIMIT = 64 << 20
"""Bytes of a base's record as JSON: its tensors and samples, of the largest models there are."""


def versions() -> dict[str, str]:
    """The headers either side sends with everything it says."""
    return {API_HEADER: str(API), SCHEMA_HEADER: str(SCHEMA)}


def check_client(headers: Mapping[str, str]) -> None:
    """What a server asks of a request; a client that says nothing (curl) is served.

    Raises `ProtocolMismatch`.
    """
    spoken = _number(headers.get(API_HEADER))
    if spoken is None:
        return
    if spoken > API:
        raise ProtocolMismatch(
            f"the client speaks API {spoken} and this server (adaptry {__version__}) speaks API {API}: "
            "upgrade the server, or use an older adaptry here"
        )
    if spoken < API_OLDEST:
        raise ProtocolMismatch(
            f"the client speaks API {spoken} and this server (adaptry {__version__}) serves API "
            f"{API_OLDEST} and later: upgrade adaptry where the client runs"
        )


def check_server(headers: Mapping[str, str], url: str) -> None:
    """What a client asks of an answer. Raises `ProtocolMismatch`."""
    spoken, oldest = _number(headers.get(API_HEADER)), _number(headers.get(OLDEST_HEADER))
    if spoken is None:
        raise ProtocolMismatch(
            f"{url} does not answer as an Adaptry server does; is the address right, "
            "and is a proxy in between answering for it?"
        )
    if spoken < API:
        raise ProtocolMismatch(
            f"the server at {url} speaks API {spoken} and this adaptry ({__version__}) needs API {API}: "
            "upgrade the server, or use an older adaptry here"
        )
    if oldest is not None and oldest > API:
        raise ProtocolMismatch(
            f"the server at {url} serves API {oldest} and later and this adaptry ({__version__}) speaks "
            f"API {API}: upgrade adaptry here"
        )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 6 else None
