"""The part of a local registry about names for commits: what a word means, branches, tags, and what they reach.

Branches, tags and aliases of an adapter share their names, so that one word has one meaning.
"""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.errors import Conflict, PermissionDenied, RevisionNotFound, TooLarge
from adaptry.core.hub_revision import GRAMMAR, parse_branch, parse_hub_revision, parse_tag
from adaptry.core.refs import AdapterName, Latest, Number, Selector
from adaptry.registry.commits import MAIN
from adaptry.registry.records import BranchInfo, CommitInfo, CommitNote, Page
from adaptry.storage.catalog import aliases, commits, cursors, events, git_refs, versions
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.case_conflicts import label_like
from adaptry.storage.catalog.commits import CommitRecord
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.git_refs import GitRef, GitRefKind
from adaptry.storage.catalog.ref_resolution import find
from adaptry.storage.local.context import RegistryContext

_BRANCH, _COMMIT = TypeAdapter(BranchInfo), TypeAdapter(CommitInfo)

MAX_REFS = 1000
"""Branches and tags that one adapter may have: they are always listed together."""


class LocalBranches(RegistryContext):
    """`commit`, `commits`, `references`, and `make_branch` to `squash`."""

    def commit(self, name: AdapterName, revision: str = MAIN) -> CommitInfo:
        with self.catalog.read() as tx:
            return _resolve_revision(tx, self.readable_adapter(tx, name), revision).info

    def commits(
        self, name: AdapterName, revision: str = MAIN, cursor: str | None = None, limit: int = 50
    ) -> Page[CommitInfo]:
        cursors.check_limit(limit)
        with self.catalog.read() as tx:
            line = self.readable_adapter(tx, name)
            return commits.page(tx, line, _resolve_revision(tx, line, revision), cursor, limit)

    def references(self, name: AdapterName) -> tuple[BranchInfo, ...]:
        with self.catalog.read() as tx:
            line = self.readable_adapter(tx, name)
            named = [_info(mark) for mark in git_refs.list_refs(tx, line)]
            named += [
                BranchInfo(name=found.alias, kind="alias", digest=found.digest)
                for found in aliases.infos(tx, line)
            ]
        return tuple(sorted(named, key=lambda info: (info.kind != "head", info.kind, info.name)))

    def create_branch(self, name: AdapterName, branch: str, at: str = MAIN) -> BranchInfo:
        return self._make(name, parse_branch(branch), "branch", at, "")

    def create_tag(self, name: AdapterName, tag: str, at: str = MAIN, message: str = "") -> BranchInfo:
        return self._make(name, parse_tag(tag), "tag", at, message)

    def delete_branch(self, name: AdapterName, branch: str) -> None:
        if branch == MAIN:
            raise PermissionDenied(
                f"main is the line of {name}'s versions and stays; delete the adapter to remove them"
            )
        self._drop(name, branch, "branch")

    def delete_tag(self, name: AdapterName, tag: str) -> None:
        self._drop(name, tag, "tag")

    def squash(self, name: AdapterName, branch: str, note: CommitNote) -> CommitInfo:
        with self.catalog.write() as tx:
            line = self.writable_adapter(tx, name)
            return self.run_once(tx, _COMMIT, lambda: self._squash(tx, line, branch, note))

    def _squash(self, tx: Transaction, line: AdapterRecord, branch: str, note: CommitNote) -> CommitInfo:
        now, by = self.clock(), self.identity.name
        head = self.head(tx, line, branch)
        tree, where = versions.manifest(tx, head.digest), parse_hub_revision(branch).name
        step = commits.add(tx, line, where, tree, note, head.info.carries, at=now, by=by, parent=None)
        git_refs.put(tx, line, where, "branch", step, now, by)
        detail = {"branch": where, "commit": head.digest, "title": note.title}
        events.record(tx, "branch.squashed", at=now, by=by, line=line, detail=detail)
        return step.info

    def head(self, tx: Transaction, line: AdapterRecord, branch: str) -> CommitRecord:
        """Where a branch is that commits may be made to. Raises `RevisionNotFound`, `PermissionDenied` for an alias."""
        word = parse_hub_revision(branch)
        mark = git_refs.find(tx, line, word.name) if word.scope != "tag" else None
        if mark and mark.kind == "branch":
            step = commits.find_by_ref(tx, line, mark.name)
            assert step is not None
            return step
        _refuse_alias(tx, line, word.name)
        raise RevisionNotFound(f"{line.name} has no branch {branch[:80]!a}; make it first")

    def _make(self, name: AdapterName, text: str, kind: GitRefKind, at: str, message: str) -> BranchInfo:
        with self.catalog.write() as tx:
            line = self.writable_adapter(tx, name)
            return self.run_once(tx, _BRANCH, lambda: self._put_ref(tx, line, text, kind, at, message))

    def _put_ref(
        self, tx: Transaction, line: AdapterRecord, text: str, kind: GitRefKind, at: str, message: str
    ) -> BranchInfo:
        now, by = self.clock(), self.identity.name
        if taken := git_refs.find(tx, line, text):
            raise Conflict(f"{line.name} has a {taken.kind} {text} already, at {taken.digest.short_id}")
        if aliases.find(tx, line, text):
            raise Conflict(f"{line.name} has an alias {text} already; choose another name for the {kind}")
        if like := label_like(tx, line.key, text):
            raise Conflict(
                f"the {kind} {text} differs only in capitals from {line.name}@{like}, which exists; write {like}, or choose "
                "another name"
            )
        if git_refs.count(tx, line) >= MAX_REFS:
            raise TooLarge(f"{line.name} has {MAX_REFS} branches and tags; drop some first")
        made = git_refs.put(tx, line, text, kind, _resolve_revision(tx, line, at), now, by, message)
        detail = {kind: text, "commit": made.digest, "message": message or None}
        events.record(tx, f"{kind}.made", at=now, by=by, line=line, detail=detail)
        return _info(made)

    def _drop(self, name: AdapterName, text: str, kind: GitRefKind) -> None:
        with self.catalog.write() as tx:
            line = self.writable_adapter(tx, name)
            mark = git_refs.find(tx, line, text)
            if mark is None or mark.kind != kind:
                if kind == "branch":
                    _refuse_alias(tx, line, text)
                raise RevisionNotFound(f"{name} has no {kind} {text[:80]!a}")
            git_refs.drop(tx, line, text)
            detail = {kind: text, "was": mark.digest}
            by = self.identity.name
            events.record(tx, f"{kind}.dropped", at=self.clock(), by=by, line=line, detail=detail)


def _resolve_revision(tx: Transaction, line: AdapterRecord, revision: str) -> CommitRecord:
    """What a word means. Raises `RevisionNotFound`, `Conflict` for the beginning of several ids."""
    word = parse_hub_revision(revision)
    step = None
    if revision == "latest":
        step = _version(tx, line, Latest())
    elif word.number is not None:
        step = _version(tx, line, Number(word.number))
    if step is None and word.prefix is not None:
        step = commits.find_by_digest(tx, line, word.prefix)
    if step is None:
        step = _named(tx, line, word.name, word.scope)
    if step is None:
        raise RevisionNotFound(f"{line.name} has no revision {revision[:80]!a} ({GRAMMAR})")
    return step


def _version(tx: Transaction, line: AdapterRecord, selector: Selector) -> CommitRecord | None:
    version = find(tx, line, selector)
    return commits.find_by_digest(tx, line, version.digest.hex) if version else None


def _named(tx: Transaction, line: AdapterRecord, name: str, scope: str) -> CommitRecord | None:
    mark = git_refs.find(tx, line, name)
    if mark:
        return commits.find_by_ref(tx, line, name) if scope in ("any", mark.kind) else None
    alias = aliases.find(tx, line, name) if scope != "tag" else None
    return commits.find_by_digest(tx, line, alias.digest.hex) if alias else None


def _refuse_alias(tx: Transaction, line: AdapterRecord, name: str) -> None:
    alias = aliases.find(tx, line, name)
    if alias:
        raise PermissionDenied(
            f"{name} is an alias of {line.name} and moves only from version to version: "
            f"`adaptry alias set {line.name}@{alias.number} {name}`"
        )


def _info(mark: GitRef) -> BranchInfo:
    kind = "head" if mark.name == MAIN else mark.kind
    return BranchInfo(name=mark.name, kind=kind, digest=mark.digest, message=mark.message)
