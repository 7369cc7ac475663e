"""The inbox role of a local registry: posted results, attached to the version that they state, or kept
apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial

from adaptry.core.access.actions import Action
from adaptry.core.access.conditions import Facts
from adaptry.core.access.resources import ALL_NAMES, matches
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, Invalid, NotFound, PermissionDenied, QuotaExceeded, Unauthenticated
from adaptry.core.evidence.posted_file import ParsedPost, check_posted_path, read_posted
from adaptry.core.evidence.values import EvidenceFile
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, ByDigest, Number, Ref, parse_namespace
from adaptry.registry.evidence import EvidenceAddition
from adaptry.registry.inbox import (
    MAX_BYTES,
    MAX_BYTES_OF_ONE,
    MAX_FILES_OF_ONE,
    MAX_KEPT_FILES,
    Inbox,
    KeptResults,
    PostedFile,
)
from adaptry.registry.records import Page
from adaptry.storage.catalog import adapters, commits, cursors, posted_files
from adaptry.storage.catalog.audit_log.recorder import AuditTarget
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import PostedFileRow
from adaptry.storage.catalog.versions import VersionRecord, to_record
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.evidence import LocalEvidence
from adaptry.storage.local.uploads import LocalUploads

_NO_REVISION = (
    "the file does not state which version was measured; lm-eval states it if the adapter's folder is"
    " named by its"
    " digest, as `adaptry eval REF --dry-run` prints"
)


@dataclass(frozen=True, slots=True)
class _Destination:
    """The version for which posted results are evidence, or the reason why they are kept apart."""

    version: VersionRecord | None = None
    name: AdapterName | None = None
    reason: str | None = None


@dataclass(frozen=True)
class LocalInbox(Inbox):
    """The posted results of a local registry."""

    context: RegistryContext

    def post(self, namespace: str, path: str, data: bytes) -> PostedFile:
        namespace, path = parse_namespace(namespace), check_posted_path(path)
        self._require_posting(namespace)
        parsed = read_posted(path.rpartition("/")[2], data)
        by, file = self.context.identity.name, Digest.of(data)
        with self.context.catalog.read() as tx:
            if known := posted_files.find_same(tx, namespace, by, parsed.run, file):
                return posted_files.posted_file(known)
            results = None
            if not parsed.is_results:
                results = _results_of(tx, namespace, by, parsed, path)
            adapter, revision = (results.adapter, results.revision) if results else _stated(parsed)
            to = self._destination(tx, adapter, revision)
        row = PostedFileRow(
            namespace=namespace,
            path=path,
            run=parsed.run,
            task=parsed.task,
            file_digest=file.hex,
            git_id=_git_id(data),
            size=len(data),
            stored=0,
            posted_at=self.context.clock(),
            posted_by=by,
            model=results.model if results else parsed.model,
            adapter=adapter,
            revision=revision,
        )
        if to.version is None or (results is not None and results.reason is not None):
            row.reason = results.reason if results and results.reason else to.reason
            return self._keep(row, data)
        return self._attach_in_transaction(row, data, parsed, results, to)

    def posted(self, namespace: str) -> tuple[PostedFile, ...]:
        namespace, identity = parse_namespace(namespace), self.context.identity
        if identity.is_anonymous:
            return ()
        with self.context.catalog.read() as tx:
            found = posted_files.posted_by(tx, namespace, identity.name, 2 * MAX_FILES_OF_ONE)
        return tuple(one for one in found if self._is_within_limit("read", namespace, one.adapter))

    def list(self, namespace: str, cursor: str | None = None, limit: int = 50) -> Page[KeptResults]:
        cursors.check_limit(limit)
        namespace = parse_namespace(namespace)
        identity = self.context.identity
        by = None if self._manages(namespace) else identity.name
        names = frozenset[str]() if identity.is_anonymous else identity.within_limit("read", namespace)
        with self.context.catalog.read() as tx:
            return posted_files.page(tx, namespace, by, cursor, limit, names)

    def get(self, id: int) -> KeptResults:
        with self.context.catalog.read() as tx:
            return posted_files.kept_results(tx, self._kept_results(tx, id))

    def read(self, id: int) -> bytes:
        with self.context.catalog.read() as tx:
            row = posted_files.find(tx, id)
            data = posted_files.content(row) if row is not None and self._sees(row) else None
        if data is None:
            raise _no_results(id)
        return data

    def attach(self, id: int, ref: Ref) -> EvidenceAddition:
        with self.context.catalog.read() as tx:
            row = self._kept_results(tx, id)
            version = to_record(self.context.resolve(tx, ref))
            self.context.require("evidence.add", ref.name)
            if row.revision and not self._is_stated(tx, ref.name, row.revision, version):
                raise Conflict(
                    f"{row.path} states that it measured revision {row.revision[:12]}, but"
                    f" {ref.name}@{version.number}"
                    f" is {version.digest.brief}; name the version that was measured"
                )
            rows = [row, *posted_files.kept_samples(tx, row)]
            results = _content(row)
        parsed = read_posted(row.path.rpartition("/")[2], results)
        samples: dict[str | None, Digest] = {one.task: Digest(one.file_digest) for one in rows if one.task}
        contents = {Digest(one.file_digest): partial(self._stored, one) for one in rows}
        addition = self._add(ref.name, version, _with_samples(parsed, samples), contents)
        with self.context.write() as tx:
            posted_files.delete(tx, row)
            self._record(tx, "results.attach", row, {"version": f"{ref.name}@{version.number}"})
        return addition

    def discard(self, id: int) -> None:
        with self.context.write() as tx:
            row = self._kept_results(tx, id)
            if not self._is_within_limit("evidence.add", row.namespace, row.adapter):
                raise PermissionDenied(
                    f"this token may not discard results {id}: its limits do not allow evidence.add in"
                    f" {row.namespace}; use another token"
                )
            posted_files.delete(tx, row)
            self._record(tx, "results.discard", row, {})

    def _attach_in_transaction(
        self,
        row: PostedFileRow,
        data: bytes,
        parsed: ParsedPost,
        results: PostedFileRow | None,
        to: _Destination,
    ) -> PostedFile:
        assert to.version is not None
        assert to.name is not None
        if results is None:
            file = _with_samples(parsed, {})
        else:
            of_run = read_posted(results.path.rpartition("/")[2], _content(results))
            file = _with_samples(of_run, {parsed.task: Digest.of(data)}, only=parsed.task)
        self._add(to.name, to.version, file, {Digest.of(data): lambda: data})
        row.subject, row.adapter = to.version.digest.hex, str(to.name)
        with self.context.write() as tx:
            posted_files.expire_receipts(tx, row.namespace, row.posted_by, row.posted_at)
            return posted_files.posted_file(posted_files.insert(tx, row, data if results is None else None))

    def _keep(self, row: PostedFileRow, data: bytes) -> PostedFile:
        if not self._may_keep(row):
            raise _no_namespace(row.namespace, row.posted_by)
        with self.context.write() as tx:
            if known := posted_files.find_same(
                tx, row.namespace, row.posted_by, row.run, Digest(row.file_digest)
            ):
                return posted_files.posted_file(known)
            if row.task and not posted_files.has_kept_results(tx, row.namespace, row.posted_by, row.run):
                raise Conflict(
                    f"{row.path} has per-sample values, but the results that it belongs to are not in the"
                    f" inbox, so it cannot be attached to them: {row.reason}"
                )
            kept = posted_files.insert(tx, row, data)
            _require_room(tx, row.namespace, row.posted_by)
            self._record(tx, "results.keep", kept, {"reason": kept.reason})
            return posted_files.posted_file(kept)

    def _may_keep(self, row: PostedFileRow) -> bool:
        """Whether the caller may read the namespace, or the adapter in it that the results name."""
        if self.context.identity.has_namespace(row.namespace):
            return True
        if row.adapter is None or not row.adapter.startswith(f"{row.namespace}/"):
            return False
        if not self._is_within_limit("read", row.namespace, row.adapter):
            return False
        try:
            with self.context.catalog.read() as tx:
                self.context.readable_adapter(tx, AdapterName.parse(row.adapter))
        except NotFound:
            return False
        return True

    def _require_posting(self, namespace: str) -> None:
        """Checks the caller's rights before a file is parsed. Raises `Unauthenticated`, and `NotFound` if the
        caller may neither add evidence to anything nor read anything in the namespace.
        """
        identity = self.context.identity
        if identity.is_anonymous:
            raise Unauthenticated("results are posted with a token: set HF_TOKEN, or run `adaptry login`")
        if identity.may_somewhere("evidence.add") or identity.readable_names(namespace):
            return
        with self.context.catalog.read() as tx:
            if not adapters.has_public(tx, namespace):
                raise _no_namespace(namespace, identity.name)

    def _stored(self, row: PostedFileRow) -> bytes:
        """The bytes of a row that was read without them. Raises `NotFound` if the row has been deleted
        since.
        """
        with self.context.catalog.read() as tx:
            found = posted_files.find(tx, row.id or 0)
            data = posted_files.content(found) if found else None
        if data is None:
            raise NotFound(f"{row.path} was attached or discarded at the same time")
        return data

    def _add(
        self,
        name: AdapterName,
        version: VersionRecord,
        file: EvidenceFile,
        contents: Mapping[Digest, Callable[[], bytes]],
    ) -> EvidenceAddition:
        """Stores the files that the evidence names, one after the other, then adds it."""
        uploads = LocalUploads(self.context)
        for digest, read in contents.items():
            if digest in file.stored_files:
                data = read()
                upload = uploads.open(name, digest, len(data))
                uploads.finish(uploads.append(upload, upload.offset, [data[upload.offset :]]))
        return LocalEvidence(self.context).add(Ref.of_revision(name, version.digest), file)

    def _destination(self, tx: Transaction, adapter: str | None, revision: str | None) -> _Destination:
        if adapter is None or revision is None:
            return _Destination(reason=_NO_REVISION)
        name, by = AdapterName.parse(adapter), self.context.identity.name
        try:
            self.context.readable_adapter(tx, name)
        except NotFound:
            return _Destination(reason=f"there is no adapter {name} that {by} may read")
        if not self.context.may("evidence.add", name):
            return _Destination(reason=f"{by} may not add evidence to {name}")
        version = self._version(tx, name, revision)
        if version is None:
            return _Destination(reason=f"no version of {name} has the revision {revision[:12]}")
        return _Destination(version, name)

    def _version(self, tx: Transaction, name: AdapterName, revision: str) -> VersionRecord | None:
        """The version of a revision, or the version with the same weights as a commit."""
        try:
            return to_record(self.context.resolve(tx, Ref(name, ByDigest(revision))))
        except (NotFound, Conflict):
            commit = self._commit_version(tx, name, revision)
            return None if commit is None else to_record(self.context.resolve(tx, Ref(name, Number(commit))))

    def _commit_version(self, tx: Transaction, name: AdapterName, revision: str) -> int | None:
        try:
            found = commits.find_by_digest(tx, self.context.readable_adapter(tx, name), revision)
        except Conflict:
            return None
        return found.info.carries if found else None

    def _is_stated(self, tx: Transaction, name: AdapterName, revision: str, version: VersionRecord) -> bool:
        return version.digest.hex.startswith(revision) or (
            self._commit_version(tx, name, revision) == version.number
        )

    def _kept_results(self, tx: Transaction, id: int) -> PostedFileRow:
        row = posted_files.find(tx, id)
        if row is None or row.reason is None or row.task is not None or not self._sees(row):
            raise _no_results(id)
        return row

    def _sees(self, row: PostedFileRow) -> bool:
        if self._manages(row.namespace):
            return True
        identity = self.context.identity
        is_own = row.posted_by == identity.name and not identity.is_anonymous
        return is_own and self._is_within_limit("read", row.namespace, row.adapter)

    def _is_within_limit(self, action: Action, namespace: str, adapter: str | AdapterName | None) -> bool:
        """Whether the token's limit allows it in the whole namespace, or on the adapter in it that a file
        states.
        """
        names = self.context.identity.within_limit(action, namespace)
        stated_in, _, name = str(adapter or "").partition("/")
        return ALL_NAMES in names or (stated_in == namespace and any(matches(name, one) for one in names))

    def _manages(self, namespace: str) -> bool:
        return self.context.identity.may_in("evidence.add", namespace, Facts(now=self.context.clock()))

    def _record(self, tx: Transaction, action: str, row: PostedFileRow, after: Mapping[str, object]) -> None:
        about = {"path": row.path, "file": f"sha256:{row.file_digest}", "posted_by": row.posted_by}
        self.context.record(tx, action, AuditTarget(row.namespace, row.namespace), after=about | dict(after))


def _git_id(data: bytes) -> str:
    """The id that git gives these bytes: clients of the Hub do not send a file again if the registry has this
    id.
    """
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _no_namespace(namespace: str, by: str) -> NotFound:
    return NotFound(f"no namespace {namespace} that {by} may read; pass hub_results_org=NAMESPACE to lm-eval")


def _no_results(id: int) -> NotFound:
    return NotFound(
        f"no results {id} in the inbox; `adaptry evidence inbox NAMESPACE` lists those of a namespace"
    )


def _results_of(tx: Transaction, namespace: str, by: str, parsed: ParsedPost, path: str) -> PostedFileRow:
    row = posted_files.results_of_run(tx, namespace, by, parsed.run)
    if row is None:
        raise Conflict(f"{path} has per-sample values; post results_{parsed.run}.json of the same run first")
    return row


def _stated(parsed: ParsedPost) -> tuple[str | None, str | None]:
    return (str(parsed.adapter) if parsed.adapter else None), parsed.revision


def _content(row: PostedFileRow) -> bytes:
    data = posted_files.content(row)
    assert data is not None
    return data


def _with_samples(
    parsed: ParsedPost,
    samples: Mapping[str | None, Digest],
    only: str | None = None,
) -> EvidenceFile:
    """The values of a results file, each with its task's samples; with `only`, those of that task."""
    assert parsed.file is not None
    values = tuple(
        value.model_copy(update={"samples": samples.get(value.task)})
        for value in parsed.file.values
        if only is None or value.task == only
    )
    if not values:
        raise Invalid(f"the results of this run have no values of the task {only}")
    return parsed.file.model_copy(update={"values": values})


def _require_room(tx: Transaction, namespace: str, by: str) -> None:
    """Raises `QuotaExceeded` if too much would be kept apart, including this file."""
    for of, files, size in ((by, MAX_FILES_OF_ONE, MAX_BYTES_OF_ONE), (None, MAX_KEPT_FILES, MAX_BYTES)):
        count, stored = posted_files.kept_use(tx, namespace, of)
        if count > files or stored > size:
            owner = f" from {by}" if of else ""
            raise QuotaExceeded(
                f"the inbox of {namespace} holds at most {files:,} files and {size >> 20} MiB{owner};"
                f" attach or discard some (`adaptry evidence inbox {namespace}` lists them)"
            )
