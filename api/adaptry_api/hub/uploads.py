"""Shared by the upload routes: checks of write access and body length, and storing a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query, Request

from adaptry.core.access.conditions import Facts
from adaptry.core.digest import Digest
from adaptry.core.errors import Busy, Conflict, DigestMismatch, Invalid, NotFound, TooLarge, Unauthenticated
from adaptry.core.identity import Identity, require
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer.retry import Failures, RetryPolicy
from adaptry.registry.bases import Bases
from adaptry.registry.interface import Registry
from adaptry.storage import tokens
from adaptry_api.errors import HttpProblem
from adaptry_api.hub.adapters import has_commit

NO_PULL_REQUESTS = (
    "this registry has no pull requests: commit to a branch of the adapter instead (create_branch, then"
    " revision=BRANCH)"
)
AsPullRequest = Annotated[str, Query(alias="create_pr", max_length=8)]


def require_writer(registry: Registry, identity: Identity, name: AdapterName) -> None:
    """Raises `NotFound` if the caller may not read the adapter or it does not exist, `Conflict` if the name
    is a base's that they may see, and `PermissionDenied` if they may only read the adapter.
    """
    try:
        is_begun = has_commit(registry.commits, registry.adapters.get(name))
    except NotFound:
        if not _is_base(registry.bases, name):
            raise
        is_begun = False
    if not is_begun and _is_base(registry.bases, name):
        raise Conflict(
            f"{name} is a base; only `adaptry base add` changes it. Push the adapter under another name, "
            f"such as {name}-lora"
        )
    require(identity, "push", name, Facts(now=datetime.now(UTC)))


def _is_base(bases: Bases, name: AdapterName) -> bool:
    try:
        return str(name) in bases.get(str(name)).names
    except (NotFound, Conflict):
        return False


def refuse_pull_request(asked: str = "1") -> None:
    """Raises `HttpProblem` (501) if the client requests a pull request."""
    if asked.lower() in ("1", "true"):
        raise HttpProblem(501, NO_PULL_REQUESTS)


def token_hash(request: Request) -> str:
    """The hash of the caller's token, for a grant. Raises `Unauthenticated`."""
    _, _, secret = request.headers.get("authorization", "").partition(" ")
    if not secret.strip():
        raise Unauthenticated("uploading requires a token")
    return tokens.hash_token(secret.strip())


def content_length(request: Request, maximum: int) -> int:
    """The length of the body. Raises `Invalid` without a `Content-Length`, and `TooLarge`."""
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdigit() and len(length) < 16):
        raise Invalid("send Content-Length, so that an incomplete body can be detected")
    if int(length) > maximum:
        raise TooLarge(f"the body has {int(length):,} bytes; the limit is {maximum:,}")
    return int(length)


def require_length(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Passes the pieces on; raises `Invalid` at the end if they do not add up to `size` bytes."""
    received = 0
    for piece in pieces:
        received += len(piece)
        if received > size:
            break
        yield piece
    if received != size:
        raise Invalid(f"received {received:,} of {size:,} bytes; send the body again")


@dataclass(slots=True)
class RequestBody:
    """The `size` bytes of a request's body, which can be read only once, from any position on."""

    pieces: Iterator[bytes]
    size: int
    is_begun: bool = False

    def read(self, start: int) -> Iterator[bytes]:
        """Everything after the first `start` bytes. Raises `HttpProblem` (503) if it was read before: the
        client sends the body again.
        """
        if self.is_begun:
            raise HttpProblem(503, "another request for this file interrupted this one; send the file again")
        return self._from(start)

    def _from(self, start: int) -> Iterator[bytes]:
        self.is_begun = True
        for piece in require_length(self.pieces, self.size):
            passed = min(start, len(piece))
            start -= passed
            if passed < len(piece):
                yield piece[passed:]

    def skip_rest(self) -> None:
        """Reads the remaining bytes: a client reads no response while it sends."""
        for _ in self.pieces:
            pass


BUSY_RETRIES = RetryPolicy(tries=6, first_wait=0.05, longest_wait=0.5, longest_queue=5.0)
"""Retries while another request sends the same bytes: that takes about a second. A client waits ten seconds
for an answer, so we retry for half of that; then the client gets the answer to try again later.
"""
BODY_RETRIES = replace(BUSY_RETRIES, longest_queue=0.0)
"""The same while a body waits to be read: other requests look whether the same file is being sent, and while
they look, it seems to be.
"""


def store_file(
    registry: Registry,
    name: AdapterName,
    digest: Digest,
    size: int,
    read: Callable[[int], Iterator[bytes]],
    retry: RetryPolicy = BUSY_RETRIES,
    earlier: str | None = None,
) -> None:
    """Stores a file of the adapter, continuing an earlier attempt; `read` returns its bytes from a position
    on, and may be called more than once. `earlier`: the id of an upload of the file that was begun without a
    digest.

    Raises `DigestMismatch`, and then keeps nothing, if the bytes are different ones; `TooLarge`,
    `PermissionDenied`, `StorageFull`; `Busy` if the namespace has too many open uploads; `Conflict` if
    another request kept sending the same file.
    """
    failures, queued = Failures(retry), 0.0
    while not registry.files.has(name, digest):
        try:
            session = registry.uploads.open(name, digest, size, earlier)
            if session.offset < size:
                session = registry.uploads.append(session, session.offset, read(session.offset))
            registry.uploads.finish(session)
            return
        except DigestMismatch:
            raise
        except Busy as busy:
            queued = retry.wait_in_queue(busy, queued)
            continue
        except Conflict as error:
            failures.add(error)
        failures.wait()


def store_small_files(
    registry: Registry, name: AdapterName, contents: Sequence[bytes], retry: RetryPolicy = BUSY_RETRIES
) -> None:
    """Stores small files of the adapter together. Raises the errors of `Uploads.put_all`."""
    queued = 0.0
    while True:
        try:
            registry.uploads.put_all(name, contents)
        except Busy as busy:
            queued = retry.wait_in_queue(busy, queued)
        else:
            return
