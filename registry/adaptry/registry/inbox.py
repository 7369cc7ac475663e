"""The role of a registry that receives results from evaluation programs, and keeps those that it cannot
attach in an inbox.

A results file that states the version it measured, posted by a caller who may add evidence to it, becomes
evidence of that version at once. Others are kept apart in the namespace that they were posted to, until a
principal with the right to do so attaches or discards them. Nothing is guessed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime

from pydantic import Field

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName, Ref
from adaptry.registry.access import AccessRequest
from adaptry.registry.evidence import EvidenceAddition
from adaptry.registry.records import Page, Value

MAX_KEPT_FILES = 1000
MAX_FILES_OF_ONE = 200
"""Maximum number of files that are kept apart in a namespace, in total and from one principal."""
MAX_BYTES = 64 << 20
MAX_BYTES_OF_ONE = 16 << 20
"""Maximum size in bytes of these files, compressed."""


class PostRequest(AccessRequest):
    """A file that lm-eval wrote: its path, which ends with its name, and its bytes in base64."""

    path: str = Field(min_length=1, max_length=1024)
    content: str


class AttachRequest(AccessRequest):
    """The version that was measured, as in `acme/tone@3`."""

    ref: str = Field(min_length=1, max_length=512)


class PostedFile(Value):
    """A file that the caller posted. `git_id` is its id in git. `reason` explains why it was kept apart; None
    if it became evidence of `adapter` at `revision`.
    """

    id: int
    path: str
    file: Digest
    git_id: str
    size: int
    at: datetime
    adapter: AdapterName | None = None
    revision: str | None = None
    reason: str | None = None


class KeptResults(Value):
    """Results that were kept apart. `model`, `adapter` and `revision` are what the file states; `samples`
    counts the samples files that belong to it.
    """

    id: int
    namespace: str
    path: str
    file: Digest
    size: int
    at: datetime
    by: str
    model: str | None = None
    adapter: AdapterName | None = None
    revision: str | None = None
    samples: int = 0
    reason: str


class Inbox(ABC):
    """Posted results. Those that were kept apart are visible to the principal who posted them, and to holders
    of `evidence.add` in the whole namespace; for others they do not exist. A limited token sees only results
    of namespaces and adapters within its limit. Anonymous callers can neither post nor see results.
    """

    @abstractmethod
    def post(self, namespace: str, path: str, data: bytes) -> PostedFile:
        """Adds a results file, or samples of results that the caller posted before, to the version that it
        states; if that is not possible, keeps it apart. Posting an identical file again changes nothing.

        Raises `Unauthenticated` for anonymous callers, `Invalid`, `Conflict` for samples without results, or
        for results that became evidence to which the caller may no longer add, `NotFound` if it cannot be
        attached and the caller may read neither the namespace nor the adapter that it names, and
        `QuotaExceeded` if too much is kept apart there.
        """

    @abstractmethod
    def posted(self, namespace: str) -> tuple[PostedFile, ...]:
        """The files that the caller posted there, newest first: those that were kept apart, and those that
        became evidence within the last day.
        """

    @abstractmethod
    def list(self, namespace: str, cursor: str | None = None, limit: int = 50) -> Page[KeptResults]:
        """The results that await a review in the inbox, newest first."""

    @abstractmethod
    def get(self, id: int) -> KeptResults:
        """Gets results that were kept apart. Raises `NotFound`."""

    @abstractmethod
    def read(self, id: int) -> bytes:
        """The bytes of a posted results file. Raises `NotFound`."""

    @abstractmethod
    def attach(self, id: int, ref: Ref) -> EvidenceAddition:
        """Adds results that were kept apart, and their samples, to a version as evidence.

        Raises `NotFound`, `PermissionDenied` without `evidence.add` on the adapter, and `Conflict` if the
        file states another revision.
        """

    @abstractmethod
    def discard(self, id: int) -> None:
        """Deletes results that were kept apart, and their samples.

        Raises `NotFound`, and `PermissionDenied` if the caller's token has a limit without `evidence.add`.
        """
