"""The registry interface: every operation is written against it.

`LocalRegistry` (a catalog and blobs) and `HttpRegistry` (a server) are the two implementations; they pass
the same contract suite, errors included. Every call for bytes names the adapter or base it is for: a
digest alone opens nothing. All methods raise `Unavailable` when the store or server cannot answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping

from adaptry.adapters.base_record import BaseRecord
from adaptry.core.digest import Digest
from adaptry.core.manifest import FileEntry
from adaptry.core.refs import AdapterName, Ref
from adaptry.registry.commits import CommitsApi
from adaptry.registry.events import EventsApi
from adaptry.registry.jobs import JobsApi
from adaptry.registry.records import (
    AdapterEdit,
    AdapterInfo,
    AliasInfo,
    BaseEdit,
    BaseInfo,
    Event,
    MetricInfo,
    Page,
    PushOptions,
    PushResult,
    StateChange,
    TensorInspection,
    UploadInfo,
    UploadSession,
    VersionDetail,
    VersionInfo,
)
from adaptry.registry.rollouts import RolloutsApi
from adaptry.registry.workers import WorkersApi

Owner = AdapterName | Digest
"""Whom bytes belong to: an adapter by name, or a base by id."""


class Registry(CommitsApi, EventsApi, WorkersApi, RolloutsApi, JobsApi, ABC):
    """Versioned adapters and the bases they fit; commits and branches are in `CommitsApi`, what happens in
    `EventsApi`, workers in `WorkersApi`, how a version takes over from another in `RolloutsApi`, and jobs in
    `JobsApi`.

    Pages hold at most `limit` (1 to 200) items.
    """

    @property
    def is_on_this_machine(self) -> bool:
        """Whether bytes on their way to it stay on this machine. Then looking at them before sending saves
        nothing.
        """
        return True

    def close(self) -> None:
        """Lets go of files and connections; a registry that is not closed does so when it is collected."""

    # Adapters

    @abstractmethod
    def create_adapter(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        """A new, empty adapter; private unless `edit` says otherwise. Raises `Conflict`, `PermissionDenied`.

        Reviving a deleted name goes on with its numbering.
        """

    @abstractmethod
    def adapter(self, name: AdapterName) -> AdapterInfo:
        """Raises `NotFound`."""

    @abstractmethod
    def adapters(
        self, namespace: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[AdapterInfo]:
        """Adapters in name order, of one namespace or of all that may be read."""

    @abstractmethod
    def edit_adapter(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        """Raises `NotFound`, `PermissionDenied`."""

    @abstractmethod
    def rename_adapter(self, name: AdapterName, to: AdapterName) -> AdapterInfo:
        """Versions, aliases and history go along. Raises `NotFound`, `PermissionDenied`, `Conflict` where
        `to` is taken.
        """

    @abstractmethod
    def delete_adapter(self, name: AdapterName) -> None:
        """Leaves a tombstone: only its namespace can revive the name. Raises `NotFound`, `PermissionDenied`,
        `Conflict` (aliased).
        """

    # Bytes

    @abstractmethod
    def has_file(self, owner: Owner, digest: Digest) -> bool:
        """Whether `owner` already has these bytes. Never tells of another owner's."""

    @abstractmethod
    def open_upload(self, owner: Owner, digest: Digest, size: int) -> UploadInfo:
        """A session for a file of `size` bytes; an idle unfinished one for the same bytes is taken up again.

        Raises `Busy` while the namespace has too many open that are not abandoned, `Conflict` if the adapter
        would have a base's name, `Unavailable` while the same bytes are being deleted, `TooLarge`,
        `StorageFull`.
        """

    @abstractmethod
    def append_upload(self, upload: UploadInfo, offset: int, chunks: Iterable[bytes]) -> UploadInfo:
        """Adds bytes at `offset`, streaming; what arrived before an interruption is kept.

        Raises `OffsetMismatch` (with the right offset), `Conflict` (someone else is writing), `NotFound`
        (expired), `TooLarge` (more than was announced), `StorageFull`.
        """

    @abstractmethod
    def finish_upload(self, upload: UploadInfo) -> None:
        """Verifies and publishes; again is a no-op. Raises `DigestMismatch` and keeps nothing, `Conflict` if
        bytes are missing.
        """

    @abstractmethod
    def upload_sessions(
        self, namespace: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[UploadSession]:
        """Open sessions of the namespaces that the caller may write to, or of one of them; those of bases for
        an administrator. In no particular order.
        """

    @abstractmethod
    def drop_upload(self, id: str) -> None:
        """Ends an open session and discards its bytes. A client that is sending gets `NotFound`, and may
        start again.

        Raises `NotFound` where it is not open, or not the caller's to drop.
        """

    @abstractmethod
    def read_file(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        """The file's bytes from `start` on, in pieces of at most 1 MiB, not verified.

        Raises `NotFound`, and `Withdrawn` where they are those of a version that is held back from the
        caller.
        """

    # Revisions and versions

    @abstractmethod
    def put_revision(self, name: AdapterName, manifest: bytes, options: PushOptions) -> PushResult:
        """Admits a revision whose files are here: derives its spec, runs the checks, numbers it.

        A known digest gives its version back. Raises `InvalidManifest`, `InvalidConfig`, `InvalidWeights`,
        `NotFound` (a file is missing), `CheckFailed` (the checks block and there is no reason to force),
        `PermissionDenied`.
        """

    @abstractmethod
    def version(self, ref: Ref) -> VersionInfo:
        """What a ref means now. Raises `NotFound`, or `Conflict` for an ambiguous digest prefix."""

    @abstractmethod
    def detail(self, ref: Ref) -> VersionDetail:
        """As `version`, with manifest, spec and report."""

    @abstractmethod
    def versions(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[VersionInfo]:
        """Newest first. Raises `NotFound`."""

    @abstractmethod
    def search(self, query: str, cursor: str | None = None, limit: int = 50) -> Page[VersionInfo]:
        """Versions that match (`query.GRAMMAR`), newest first. Raises `InvalidQuery`.

        Without a `state:` term, those that are active or deprecated.
        """

    @abstractmethod
    def count_download(self, ref: Ref) -> None:
        """One pull, however many files."""

    @abstractmethod
    def inspect_tensors(self, ref: Ref, cursor: str | None = None, limit: int = 50) -> Page[TensorInspection]:
        """What each tensor of a version holds, in the order of its files.

        Weights are inspected when they are admitted; those of a version from before that are inspected now,
        once, and what is found joins the version's report. Raises `NotFound`, `Unavailable` where that fails.
        """

    # States

    @abstractmethod
    def set_state(self, name: AdapterName, revision: Digest, change: StateChange, was: int) -> VersionInfo:
        """Compare-and-swap: changes only if the generation of the version's `standing` is `was` (0: it has
        none).

        A version that stands so already stays as it is, whatever `was` says; the answer names the aliases
        that are on it. Raises `Conflict` with the state found or for a successor that is none, `NotFound`,
        `PermissionDenied`.
        """

    # Aliases and history

    @abstractmethod
    def aliases(self, name: AdapterName) -> tuple[AliasInfo, ...]:
        """In name order. Raises `NotFound`."""

    @abstractmethod
    def move_alias(self, name: AdapterName, alias: str, to: Digest, was: int | None) -> AliasInfo:
        """Compare-and-swap: moves only if the alias's generation is `was` (None: it does not exist).

        Raises `Conflict` with the state found, `NotFound`, `PermissionDenied`, `InvalidRef`.
        """

    @abstractmethod
    def remove_alias(self, name: AdapterName, alias: str, was: int) -> None:
        """Raises as `move_alias`."""

    @abstractmethod
    def history(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[Event]:
        """What happened to an adapter, newest first. Raises `NotFound`."""

    # Metrics

    @abstractmethod
    def log_metrics(self, ref: Ref, metrics: Mapping[str, float]) -> None:
        """Appends values; nothing is overwritten. Raises `NotFound`, `PermissionDenied`, `Invalid` (not
        finite, bad name).
        """

    @abstractmethod
    def metrics(self, ref: Ref) -> tuple[MetricInfo, ...]:
        """Every value ever logged for a version, oldest first."""

    # Bases

    @abstractmethod
    def put_base(self, record: BaseRecord, names: tuple[str, ...] = ()) -> BaseInfo:
        """Registers a base by content, as a private one; a known id gains names and evidence.

        A private base is seen by whoever holds the namespace of one of its names, an internal one by everyone
        who holds any namespace, a public one by everyone. To others it does not exist.

        Raises `Conflict` where a name is another base's or an adapter's, `Invalid` for a record whose id is
        not that of its contents.
        """

    @abstractmethod
    def base(self, key: str) -> BaseInfo:
        """By name, id, or the beginning of an id (12 digits). Raises `NotFound`, `Conflict` (ambiguous)."""

    @abstractmethod
    def base_record(self, id: Digest) -> BaseRecord:
        """Everything known about a base but its weights. Raises `NotFound`."""

    @abstractmethod
    def bases(self, cursor: str | None = None, limit: int = 50) -> Page[BaseInfo]:
        """Newest first."""

    @abstractmethod
    def bases_like(self, architecture: Digest) -> tuple[BaseInfo, ...]:
        """The bases of one architecture: the only ones whose weights need comparing."""

    @abstractmethod
    def store_base(self, id: Digest, files: tuple[FileEntry, ...]) -> BaseInfo:
        """Marks a base's uploaded files as its weights. Raises `NotFound` where a file is missing."""

    @abstractmethod
    def edit_base(self, id: Digest, edit: BaseEdit) -> BaseInfo:
        """Changes who may see a base. Raises `NotFound`, `PermissionDenied` to all but administrators."""

    @abstractmethod
    def read_base_file(self, id: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        """As `read_file`, of a stored base."""
