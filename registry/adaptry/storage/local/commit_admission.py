"""Admits commits to a local registry: derives data, checks it, then moves the branch by compare-and-swap.

A commit that makes a version goes through admission like a push; the changes of other commits are only
checked for files that readers must not get. Moving the branch, numbering and the event are one transaction.
"""

from __future__ import annotations

from adaptry.checks.weights import not_finite_findings
from adaptry.core.errors import CheckFailed, Conflict, InvalidRef
from adaptry.core.failpoints import reach
from adaptry.core.hub_revision import is_commit_id, parse_hub_revision
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.core.report import CheckReport
from adaptry.registry.commit_info import CommitNote, CommitResult
from adaptry.registry.commits import COMMIT_CREATED, MAIN
from adaptry.registry.manifest_inheritance import adapter_files, is_same_adapter
from adaptry.registry.records import PushOptions
from adaptry.storage.catalog import commits, events, git_refs, versions
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.commits import CommitRecord
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.version_info import by_keys
from adaptry.storage.catalog.versions import Admission
from adaptry.storage.local.admission import ResolvedBase, find_base
from adaptry.storage.local.blob_content import BlobContent, check_content, check_draft, check_names
from adaptry.storage.local.branch_head import branch_head, require_ref_right
from adaptry.storage.local.context import RegistryContext, require_all_undamaged
from adaptry.storage.local.hidden_bases import hide_base_in_report
from adaptry.storage.local.inspections import inspect_weights
from adaptry.storage.local.revision_admission import (
    MAX_ATTEMPTS,
    RevisionAdmission,
    StaleState,
    claim_files,
    known_version,
)
from adaptry.storage.local.revision_derivation import RevisionDerivation, require_files


@dataclass(frozen=True, slots=True)
class _CommitRequest:
    """A requested commit. `parent` is None if the branch's head does not matter."""

    branch: str
    tree: Manifest
    note: CommitNote
    parent: str | None

    def is_at(self, head: CommitRecord) -> bool:
        return self.parent is None or head.info.id.startswith(self.parent)


@dataclass(frozen=True, slots=True)
class _CommitPlan:
    """The commit from which a branch continues, the version with the new weights, and whether it becomes a
    new version.
    """

    head: CommitRecord
    carries: int | None
    makes_version: bool


@dataclass(frozen=True)
class CommitAdmission:
    """Admits commits to a local registry."""

    context: RegistryContext

    def admit(
        self, name: AdapterName, branch: str, manifest: bytes, note: CommitNote, parent: str | None = None
    ) -> CommitResult:
        """Implements `Commits.put`."""
        if parent is not None and not is_commit_id(parent):
            raise InvalidRef(f"not the id of a commit: {parent[:80]!a} (7 to 40 hex digits)")
        request = _CommitRequest(parse_hub_revision(branch).name, Manifest.parse(manifest), note, parent)
        check_draft(request.tree, with_folders=request.branch != MAIN)
        for _ in range(MAX_ATTEMPTS):
            with self.context.catalog.read() as tx:
                move = self._plan(tx, self.context.writable_adapter(tx, name, "push"), branch, request.tree)
            derived = None
            if request.is_at(move.head) and move.head.digest != request.tree.digest:
                derived = self._derive_version(name, request.tree, move)
            try:
                return self._carry_out(name, branch, request, move, derived)
            except StaleState:
                continue
        raise Conflict(f"{name} or its base kept changing during this commit; commit again")

    @property
    def _revisions(self) -> RevisionAdmission:
        return RevisionAdmission(self.context)

    def _plan(self, tx: Transaction, adapter: AdapterRecord, branch: str, tree: Manifest) -> _CommitPlan:
        head = branch_head(tx, adapter, branch)
        require_ref_right(self.context, adapter, parse_hub_revision(branch).name)
        version = known_version(tx, adapter, tree.digest)
        if version:
            return _CommitPlan(head, version.number, makes_version=False)
        is_same = is_same_adapter(versions.manifest(tx, head.digest), tree)
        carries = head.info.carries if is_same else None
        is_whole = parse_hub_revision(branch).name == MAIN and bool(adapter_files(tree))
        return _CommitPlan(head, carries, makes_version=is_whole and carries is None)

    def _derive_version(
        self, name: AdapterName, tree: Manifest, move: _CommitPlan
    ) -> tuple[Admission, ResolvedBase] | None:
        """The data of a version to store. Raises errors for missing files, and for files that readers must
        not get.
        """
        if move.makes_version:
            check_names(tree)
            return RevisionDerivation(self.context).derive(name, tree, PushOptions())
        with self.context.catalog.read() as tx:
            require_files(tx, name, tree)
            before = set(versions.manifest(tx, move.head.digest).files)
        # Files that the branch already has were checked before; a long training's branch has thousands of
        # files.
        new = tuple(entry for entry in tree.files if entry not in before)
        with self.context.catalog.read() as tx:
            require_all_undamaged(tx, {entry.path: entry.sha256 for entry in new})
        check_content(BlobContent(self.context.blobs, tree.model_copy(update={"files": new})))
        self._require_finite(name, tree, move.head)
        return None

    def _require_finite(self, name: AdapterName, tree: Manifest, head: CommitRecord) -> None:
        """Raises `CheckFailed` for weights that are new to the branch and contain NaN or infinity: training
        cannot resume from such checkpoints.
        """
        with self.context.catalog.read() as tx:
            before = set(versions.manifest(tx, head.digest).weights.values())
        fresh = [path for path, digest in tree.weights.items() if digest not in before]
        report = CheckReport(
            findings=tuple(not_finite_findings(inspect_weights(self.context, name, tree, fresh)))
        )
        if report.is_blocked:
            raise CheckFailed(report.sentence())

    def _carry_out(
        self,
        name: AdapterName,
        branch: str,
        request: _CommitRequest,
        move: _CommitPlan,
        derived: tuple[Admission, ResolvedBase] | None,
    ) -> CommitResult:
        """Carries out the commit in a transaction. Raises `StaleState` if the data read before have changed,
        and `Conflict` if the request depends on them.
        """
        reach("revisions.before_rows")
        with self.context.write() as tx:
            adapter = self.context.writable_adapter(tx, name, "push")

            def go_on() -> CommitResult:
                head = branch_head(tx, adapter, branch)
                if head.digest == request.tree.digest:
                    return self._answer(tx, adapter, head, is_new=False)
                if not request.is_at(head):
                    raise Conflict(
                        f"{name}@{request.branch} was updated since you looked, and is at {head.info.id};"
                        " look again and retry"
                    )
                if self._plan(tx, adapter, branch, request.tree) != move:
                    raise StaleState
                return self._answer(
                    tx, adapter, self._add_commit(tx, adapter, request, move, derived), is_new=True
                )

            committed = self.context.run_once(tx, CommitResult, go_on)
            reach("revisions.before_commit")
        reach("revisions.after_commit")
        return committed

    def _add_commit(
        self,
        tx: Transaction,
        adapter: AdapterRecord,
        request: _CommitRequest,
        move: _CommitPlan,
        derived: tuple[Admission, ResolvedBase] | None,
    ) -> CommitRecord:
        if move.makes_version:
            if (
                derived is None
                or find_base(tx, self.context.read_scope(tx), request.tree, derived[0].spec.base_name)
                != derived[1]
            ):
                raise StaleState
            self._revisions.insert(tx, adapter, derived[0], request.note)
            return branch_head(tx, adapter, MAIN)
        self.context.require_own_name(tx, adapter)
        claim_files(tx, adapter.name, request.tree)
        now, by = self.context.clock(), self.context.identity.name
        commit = commits.add(
            tx,
            adapter,
            request.branch,
            request.tree,
            request.note,
            move.carries,
            at=now,
            by=by,
            parent=move.head,
        )
        git_refs.put(tx, adapter, request.branch, "branch", commit, now, by)
        detail = {"branch": request.branch, "commit": commit.digest, "title": request.note.title}
        events.record(
            tx, COMMIT_CREATED, at=now, by=by, adapter=adapter, number=commit.info.number, detail=detail
        )
        return commit

    def _answer(
        self, tx: Transaction, adapter: AdapterRecord, commit: CommitRecord, *, is_new: bool
    ) -> CommitResult:
        shown, report = None, None
        if version := known_version(tx, adapter, commit.digest):
            (info,), report = by_keys(tx, [version.key]), versions.report(tx, version)
            shown, report = hide_base_in_report(tx, self.context.read_scope(tx), info, report)
        return CommitResult(commit=commit.info, is_new=is_new, version=shown, report=report)
