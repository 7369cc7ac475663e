"""Commits, branches and tags: replayed from the adapter's events."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlmodel import col, select

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import EMPTY, Manifest
from adaptry.registry.commits import COMMIT_CREATED, MAIN
from adaptry.registry.manifest_inheritance import is_same_adapter
from adaptry.storage.catalog.audit.adapter_events import AdapterHistory, AuditedEvent
from adaptry.storage.catalog.audit.problem import IntegrityProblem, compare_values
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.manifests import stored_manifest
from adaptry.storage.catalog.rows import AdapterRow, CommitRow, GitRefRow, RevisionRow, VersionRow

_MAKING = ("adapter.created", "version.pushed", COMMIT_CREATED, "branch.squashed")


@dataclass
class _ReplayedRef:
    """A branch or tag according to the events; `commit` is None if they name only the revision."""

    kind: str
    digest: str
    commit: CommitRow | None
    at: datetime
    by: str
    message: str = ""


def problems(tx: Transaction, row: AdapterRow, history: AdapterHistory) -> Iterator[IntegrityProblem]:
    commits = tx.exec(
        select(CommitRow).where(CommitRow.adapter_id == row.id).order_by(col(CommitRow.id))
    ).all()
    made = [one for one in history.events if one.kind in _MAKING]
    if len(commits) != len(made):
        yield IntegrityProblem(
            row.name, f"it has {len(commits)} commits, but {len(made)} events that made one"
        )
        return
    replay = _Replay(tx, row, list(commits))
    for one in history.events:
        yield from replay.take(one)
    yield from replay.compare(tx)


class _Replay:
    """Replays an adapter's events in order, and its commits with them."""

    def __init__(self, tx: Transaction, row: AdapterRow, commits: list[CommitRow]) -> None:
        self._name = row.name
        self._key = row.id
        self._commits = iter(commits)
        self._by_id = {commit.id: commit for commit in commits}
        self._refs: dict[str, _ReplayedRef] = {}
        versions = tx.exec(
            select(VersionRow.digest, VersionRow.number).where(VersionRow.adapter_id == row.id)
        )
        self._numbers = dict(versions.all())
        found = select(RevisionRow).where(col(RevisionRow.digest).in_({commit.digest for commit in commits}))
        self._manifests = {one.digest: _read(one) for one in tx.exec(found)}

    def take(self, one: AuditedEvent) -> Iterator[IntegrityProblem]:
        match one.kind:
            case "adapter.created":
                yield from self._step(one, MAIN, str(EMPTY.digest), "Created")
            case "version.pushed":
                yield from self._step(one, MAIN, one.detail["digest"], one.detail.get("title"))
            case "commit.created" | "branch.squashed":
                yield from self._step(one, one.detail["branch"], one.detail["commit"], one.detail["title"])
            case "branch.created" | "tag.created":
                kind = one.kind.partition(".")[0]
                self._refs[one.detail[kind]] = _ReplayedRef(
                    kind, one.detail["commit"], None, one.row.at, one.row.by, one.detail.get("message", "")
                )
            case "branch.deleted" | "tag.deleted":
                dropped = self._refs.pop(one.detail[one.kind.partition(".")[0]], None)
                was = dropped.digest if dropped else None
                where = f"event {one.seq} of {self._name}"
                yield from compare_values(
                    where,
                    "the last commit of the branch or tag",
                    one.detail.get("was"),
                    was,
                    "the events before",
                )

    def _step(
        self, one: AuditedEvent, branch: str, digest: str, title: str | None
    ) -> Iterator[IntegrityProblem]:
        commit = next(self._commits)
        where = f"commit {commit.id} of {self._name}"
        before = self._refs.get(branch)
        yield from compare_values(where, "its digest", f"sha256:{commit.digest}", digest, "its event")
        yield from compare_values(where, "its branch", commit.branch, branch, "its event")
        yield from compare_values(where, "its author", commit.author, one.row.by, "its event")
        yield from compare_values(where, "its time", commit.at, one.row.at, "its event")
        if one.kind == "version.pushed":
            titles = {title, f"Version {one.row.number}"}  # the title of all commits in older catalogs
            if commit.title not in titles:
                yield IntegrityProblem(where, f"its title is {commit.title!a}, but its event gives {title!a}")
            if title is None:
                yield from compare_values(
                    where, "its message", commit.message, one.detail.get("made", ""), "its event"
                )
        else:
            yield from compare_values(where, "its title", commit.title, title, "its event")
        if one.kind == COMMIT_CREATED:
            number = self._numbers.get(commit.digest)
            yield from compare_values(
                f"event {one.seq} of {self._name}", "its number", one.row.number, number, "its commit"
            )
        yield from self._parent(where, commit, None if one.kind == "branch.squashed" else before)
        yield from self._carries(where, commit, before, one)
        self._refs[branch] = _ReplayedRef("branch", digest, commit, one.row.at, one.row.by)

    def _parent(
        self, where: str, commit: CommitRow, before: _ReplayedRef | None
    ) -> Iterator[IntegrityProblem]:
        parent = self._by_id.get(commit.parent_id) if commit.parent_id is not None else None
        if before is None or before.commit is not None:
            expected = before.commit.id if before and before.commit else None
            yield from compare_values(where, "its parent commit", commit.parent_id, expected, "its branch")
        elif parent is None or f"sha256:{parent.digest}" != before.digest:
            yield IntegrityProblem(where, "its parent commit is not the one that its branch was at")

    def _carries(
        self, where: str, commit: CommitRow, before: _ReplayedRef | None, one: AuditedEvent
    ) -> Iterator[IntegrityProblem]:
        """Checks the version whose weights a commit has."""
        number = self._numbers.get(commit.digest)
        if number is not None:
            yield from compare_values(
                where, "the version whose weights it has", commit.carries, number, "the version"
            )
            return
        head = before.commit if before else None
        if before is not None and head is None:
            head = next(
                (known for known in self._by_id.values() if f"sha256:{known.digest}" == before.digest), None
            )
        if head is None:
            yield from compare_values(
                where, "the version whose weights it has", commit.carries, None, "its tree"
            )
            return
        old, new = self._manifests.get(head.digest), self._manifests.get(commit.digest)
        if old is None or new is None:
            return  # already reported for the revision
        keeps = one.kind == "branch.squashed" or is_same_adapter(old, new)
        head_carries = self._numbers.get(head.digest, head.carries)
        expected = head_carries if keeps else None
        yield from compare_values(
            where, "the version whose weights it has", commit.carries, expected, "its parent commit"
        )

    def compare(self, tx: Transaction) -> Iterator[IntegrityProblem]:
        """Compares the stored branches and tags with those that follow from the events."""
        rows = {row.name: row for row in tx.exec(select(GitRefRow).where(GitRefRow.adapter_id == self._key))}
        for name in sorted(rows.keys() | self._refs.keys()):
            where = f"{self._name}, branch or tag {name}"
            row, ref = rows.get(name), self._refs.get(name)
            if row is None or ref is None:
                yield IntegrityProblem(
                    where,
                    "it exists, but the event that created it is missing"
                    if row
                    else "it has events, but its row is missing",
                )
                continue
            at = self._by_id.get(row.commit_id)
            yield from compare_values(where, "its kind", row.kind, ref.kind, "its event")
            yield from compare_values(
                where, "its revision", f"sha256:{at.digest}" if at else None, ref.digest, "its last event"
            )
            if ref.commit is not None:
                yield from compare_values(where, "its commit", row.commit_id, ref.commit.id, "its last event")
            yield from compare_values(where, "the time it was set", row.set_at, ref.at, "its last event")
            yield from compare_values(where, "its author", row.set_by, ref.by, "its last event")
            yield from compare_values(where, "its message", row.message, ref.message, "its last event")


def _read(row: RevisionRow) -> Manifest | None:
    try:
        return stored_manifest(Digest(row.digest), row.manifest)
    except AdaptryError:
        return None
