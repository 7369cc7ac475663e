"""The commits role of a local registry: resolves revision names; branches, tags, and their commits.

Branches, tags and aliases of an adapter share their names, so that a name has one meaning.
"""

from __future__ import annotations

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, PermissionDenied, RevisionNotFound, TooLarge
from adaptry.core.hub_revision import GRAMMAR, parse_branch, parse_hub_revision, parse_tag
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, Latest, Number, Selector
from adaptry.registry.commit_info import BranchInfo, CommitInfo, CommitNote, CommitResult
from adaptry.registry.commits import MAIN, Commits
from adaptry.registry.records import Page
from adaptry.storage.catalog import aliases, commits, cursors, events, git_refs, policies, versions
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.case_conflicts import label_like
from adaptry.storage.catalog.commits import CommitRecord
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.git_refs import GitRef, GitRefKind
from adaptry.storage.catalog.ref_resolution import find
from adaptry.storage.local.branch_head import branch_head, refuse_alias, require_ref_right
from adaptry.storage.local.commit_admission import CommitAdmission
from adaptry.storage.local.context import RegistryContext

MAX_REFS = 1000
"""Maximum number of branches and tags of an adapter: they are always listed together."""


@dataclass(frozen=True)
class LocalCommits(Commits):
    """The commits of a local registry."""

    context: RegistryContext

    def get(self, name: AdapterName, revision: str = MAIN) -> CommitInfo:
        with self.context.catalog.read_prepared() as tx:
            return _resolve_revision(tx, self.context.readable_adapter(tx, name), revision).info

    def list(
        self, name: AdapterName, revision: str = MAIN, cursor: str | None = None, limit: int = 50
    ) -> Page[CommitInfo]:
        cursors.check_limit(limit)
        with self.context.catalog.read() as tx:
            adapter = self.context.readable_adapter(tx, name)
            return commits.page(tx, adapter, _resolve_revision(tx, adapter, revision), cursor, limit)

    def references(self, name: AdapterName) -> tuple[BranchInfo, ...]:
        with self.context.catalog.read() as tx:
            adapter = self.context.readable_adapter(tx, name)
            named = [_info(ref) for ref in git_refs.list_refs(tx, adapter)]
            named += [
                BranchInfo(name=found.alias, kind="alias", digest=found.digest)
                for found in aliases.infos(tx, adapter)
            ]
        return tuple(sorted(named, key=lambda info: (info.kind != "head", info.kind, info.name)))

    def tree(self, name: AdapterName, revision: Digest) -> Manifest:
        return self.context.tree(name, revision)

    def put(
        self, name: AdapterName, branch: str, manifest: bytes, note: CommitNote, parent: str | None = None
    ) -> CommitResult:
        return CommitAdmission(self.context).admit(name, branch, manifest, note, parent)

    def create_branch(self, name: AdapterName, branch: str, at: str = MAIN) -> BranchInfo:
        return self._make(name, parse_branch(branch), "branch", at, "")

    def create_tag(self, name: AdapterName, tag: str, at: str = MAIN, message: str = "") -> BranchInfo:
        return self._make(name, parse_tag(tag), "tag", at, message)

    def delete_branch(self, name: AdapterName, branch: str) -> None:
        if branch == MAIN:
            raise PermissionDenied(
                f"main is the branch of {name}'s versions and cannot be deleted; delete the adapter to remove"
                " them"
            )
        self._drop(name, branch, "branch")

    def delete_tag(self, name: AdapterName, tag: str) -> None:
        self._drop(name, tag, "tag")

    def squash(self, name: AdapterName, branch: str, note: CommitNote) -> CommitInfo:
        with self.context.write() as tx:
            adapter = self.context.writable_adapter(tx, name, "push")
            return self.context.run_once(tx, CommitInfo, lambda: self._squash(tx, adapter, branch, note))

    def _squash(self, tx: Transaction, adapter: AdapterRecord, branch: str, note: CommitNote) -> CommitInfo:
        now, by = self.context.clock(), self.context.identity.name
        head = branch_head(tx, adapter, branch)
        tree, where = versions.manifest(tx, head.digest), parse_hub_revision(branch).name
        require_ref_right(self.context, adapter, where)
        commit = commits.add(tx, adapter, where, tree, note, head.info.carries, at=now, by=by, parent=None)
        git_refs.put(tx, adapter, where, "branch", commit, now, by)
        detail = {"branch": where, "commit": head.digest, "title": note.title}
        events.record(tx, "branch.squashed", at=now, by=by, adapter=adapter, detail=detail)
        return commit.info

    def _make(self, name: AdapterName, text: str, kind: GitRefKind, at: str, message: str) -> BranchInfo:
        with self.context.write() as tx:
            adapter = self.context.writable_adapter(tx, name, "push")
            return self.context.run_once(
                tx, BranchInfo, lambda: self._put_ref(tx, adapter, text, kind, at, message)
            )

    def _put_ref(
        self, tx: Transaction, adapter: AdapterRecord, text: str, kind: GitRefKind, at: str, message: str
    ) -> BranchInfo:
        now, by = self.context.clock(), self.context.identity.name
        require_ref_right(self.context, adapter, text)
        if taken := git_refs.find(tx, adapter, text):
            raise Conflict(f"{adapter.name} already has a {taken.kind} {text}, at {taken.digest.short_id}")
        if aliases.find(tx, adapter, text):
            raise Conflict(f"{adapter.name} already has an alias {text}; choose another name for the {kind}")
        if policies.in_force(tx, adapter, text):
            raise Conflict(f"{text} is an alias with a policy; choose another name for the {kind}")
        if like := label_like(tx, adapter.key, text):
            raise Conflict(
                f"the {kind} {text} differs only in case from {adapter.name}@{like}, which exists; write"
                f" {like}, or choose another name"
            )
        if git_refs.count(tx, adapter) >= MAX_REFS:
            raise TooLarge(f"{adapter.name} has {MAX_REFS} branches and tags; delete some first")
        made = git_refs.put(tx, adapter, text, kind, _resolve_revision(tx, adapter, at), now, by, message)
        detail = {kind: text, "commit": made.digest, "message": message or None}
        events.record(tx, f"{kind}.created", at=now, by=by, adapter=adapter, detail=detail)
        return _info(made)

    def _drop(self, name: AdapterName, text: str, kind: GitRefKind) -> None:
        with self.context.write() as tx:
            adapter = self.context.writable_adapter(tx, name, "push")
            ref = git_refs.find(tx, adapter, text)
            if ref is None or ref.kind != kind:
                if kind == "branch":
                    refuse_alias(tx, adapter, text)
                raise RevisionNotFound(f"{name} has no {kind} {text[:80]!a}")
            require_ref_right(self.context, adapter, text)
            git_refs.delete(tx, adapter, text)
            detail = {kind: text, "was": ref.digest}
            by = self.context.identity.name
            events.record(
                tx, f"{kind}.deleted", at=self.context.clock(), by=by, adapter=adapter, detail=detail
            )


def _resolve_revision(tx: Reads, adapter: AdapterRecord, revision: str) -> CommitRecord:
    """Resolves a revision name. Raises `RevisionNotFound`, `Conflict` if the name is the beginning of several
    ids.
    """
    revision_name = parse_hub_revision(revision)
    commit = None
    if revision == "latest":
        commit = _version(tx, adapter, Latest())
    elif revision_name.number is not None:
        commit = _version(tx, adapter, Number(revision_name.number))
    if commit is None and revision_name.prefix is not None:
        commit = commits.find_by_digest(tx, adapter, revision_name.prefix)
    if commit is None:
        commit = _named(tx, adapter, revision_name.name, revision_name.scope)
    if commit is None:
        raise RevisionNotFound(f"{adapter.name} has no revision {revision[:80]!a} ({GRAMMAR})")
    return commit


def _version(tx: Reads, adapter: AdapterRecord, selector: Selector) -> CommitRecord | None:
    version = find(tx, adapter, selector)
    return commits.find_by_digest(tx, adapter, version.digest.hex) if version else None


def _named(tx: Reads, adapter: AdapterRecord, name: str, scope: str) -> CommitRecord | None:
    ref = git_refs.find(tx, adapter, name)
    if ref and not policies.in_force(tx, adapter, name):
        return commits.find_by_ref(tx, adapter, name) if scope in ("any", ref.kind) else None
    alias = aliases.find(tx, adapter, name) if scope != "tag" else None
    return commits.find_by_digest(tx, adapter, alias.digest.hex) if alias else None


def _info(ref: GitRef) -> BranchInfo:
    kind = "head" if ref.name == MAIN else ref.kind
    return BranchInfo(name=ref.name, kind=kind, digest=ref.digest, message=ref.message)
