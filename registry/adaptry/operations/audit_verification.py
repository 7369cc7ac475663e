"""Exports an audit log, and verifies one in a registry or an exported file, optionally against an older
checkpoint.

Every entry's line must have the hash that it was sealed with, and the hashes must give the root of every
signed checkpoint. With a checkpoint that was kept elsewhere, even an attacker with the registry and its key
cannot rewrite the entries that it covers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.transparency.checkpoint import LogCheckpoint, VerifierKey
from adaptry.core.transparency.merkle import Peaks, leaf_hash
from adaptry.registry.audit_log import MAX_SEALED, AuditFilter, AuditLog
from adaptry.registry.records import Value

_MAX_PROBLEMS = 100  # problems that are reported


class AuditReport(Value):
    """The result of a verification. `entries` is the number of sealed entries, `unsealed` the number of the
    others; `checkpoint` is the log's size in the newest signed checkpoint, `older` its size in the caller's
    checkpoint.
    """

    entries: int
    unsealed: int | None
    checkpoint: int | None
    older: int | None
    key: str | None
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _SealedLine:
    """An entry's line, and the hash that it was sealed with, if the source has that."""

    seq: int | None
    text: str
    leaf: bytes | None


@dataclass(frozen=True, slots=True)
class _SignedCheckpoint:
    """A signed checkpoint; `source` names it for people."""

    text: str
    checkpoint: LogCheckpoint
    source: str

    @classmethod
    def parse(cls, text: str, source: str) -> _SignedCheckpoint:
        checkpoint = LogCheckpoint.parse(text)
        return cls(text, checkpoint, f"{source} of {checkpoint.size} entries")


def verify_log(
    audit: AuditLog,
    key: VerifierKey | None = None,
    older: str | None = None,
    older_key: VerifierKey | None = None,
) -> AuditReport:
    """Verifies the log of a registry. `older` is a checkpoint that was saved before, and `older_key` the key
    that it is signed with, if the log's key has been replaced since.

    Raises `PermissionDenied` if the caller is not an administrator, `Invalid` for a malformed checkpoint.
    """
    newest = audit.checkpoint()
    key = key or (VerifierKey.parse(newest.key) if newest.key else None)
    last = _SignedCheckpoint.parse(newest.note, "the newest checkpoint") if newest.note else None
    size = last.checkpoint.size if last else 0
    lines = (line for line in _sealed_lines(audit) if line.seq is None or line.seq < size)
    notes = [*_stored_notes(audit, size), *([last] if last else [])]
    check = _Check(key, notes, older, older_key or key)
    for line in lines:
        check.add(line)
    check.finish()
    check.require_nothing_beyond(audit)
    return check.report(newest.unsealed, size if last else None)


def verify_export(
    path: Path,
    key: VerifierKey | None = None,
    older: str | None = None,
    older_key: VerifierKey | None = None,
) -> AuditReport:
    """Verifies a complete export. Without a key, signatures are not verified. `older` and `older_key` are
    those of `verify_log`.

    Raises `Invalid` for a file that is not an export, or was exported with a filter.
    """
    notes = [_SignedCheckpoint.parse(note, "the checkpoint") for note in _notes_in(path)]
    if not notes:
        raise Invalid(f"{path} has no checkpoint at its end: it is incomplete, or was exported with a filter")
    check = _Check(key, notes, older, older_key or key)
    for line in _lines_in(path):
        check.add(line)
    check.finish()
    return check.report(None, notes[-1].checkpoint.size)


def write_export(audit: AuditLog, filters: AuditFilter, write: Callable[[str], object]) -> int:
    """Writes each entry as a line, and after the whole log its checkpoints; returns the number of entries.

    The log records the export. Raises `PermissionDenied`, `Invalid`.
    """
    newest = audit.begin_export(filters)
    if not filters.is_everything or newest.note is None:
        return _write_pages(audit, filters, write)
    last = LogCheckpoint.parse(newest.note)
    count = 0
    for line in _sealed_lines(audit):
        if line.seq is not None and line.seq >= last.size:
            break
        write(line.text)
        count += 1
    for text in [*(note.text for note in _stored_notes(audit, last.size)), newest.note]:
        write(json.dumps({"checkpoint": text}, ensure_ascii=False, separators=(",", ":")))
    return count


def _write_pages(audit: AuditLog, where: AuditFilter, write: Callable[[str], object]) -> int:
    count = 0
    cursor: str | None = None
    while True:
        page = audit.list(where, cursor, 200, oldest_first=True)
        for entry in page.items:
            write(entry.line)
        count, cursor = count + len(page.items), page.next
        if cursor is None:
            return count


class _Check:
    """Reads the lines once, and compares roots at every checkpoint."""

    def __init__(
        self,
        key: VerifierKey | None,
        notes: Iterable[_SignedCheckpoint],
        older: str | None,
        older_key: VerifierKey | None,
    ) -> None:
        self._key, self._older_key = key, older_key
        self._older = _SignedCheckpoint.parse(older, "the older checkpoint") if older is not None else None
        every = [*notes, *([self._older] if self._older else [])]
        self._notes = iter(sorted(every, key=lambda note: note.checkpoint.size))
        self._next = next(self._notes, None)
        self._last = max(every, key=lambda note: note.checkpoint.size, default=None)
        self._peaks = Peaks()
        self._proved = 0  # entries that a checkpoint has confirmed
        self._is_broken = False  # later roots prove nothing: an earlier line differs
        self._problems: list[str] = []
        for note in filter(None, (self._last, self._older)):
            self._require_signature(note)

    def add(self, line: _SealedLine) -> None:
        self._compare_roots()
        expected = self._peaks.size
        computed = leaf_hash(line.text.encode())
        if line.seq is None or line.seq < expected:
            self._add_problem(
                f"a line of the file was inserted after entry {expected - 1}: {line.text[:200]}"
            )
            self._is_broken = True
            return
        if line.seq > expected:
            is_one = line.seq == expected + 1
            missing = f"entry {expected} is" if is_one else f"entries {expected} to {line.seq - 1} are"
            self._add_problem(f"{missing} missing")
            self._is_broken = True
            for _ in range(expected, line.seq):
                self._peaks.append(bytes(32))
        if line.leaf is not None and line.leaf != computed:
            self._add_problem(
                f"entry {line.seq} was changed after it was sealed; it now reads: {line.text[:400]}"
            )
        self._peaks.append(line.leaf or computed)

    def finish(self) -> None:
        self._compare_roots()
        if self._next is not None:
            have = self._peaks.size
            self._add_problem(
                f"{self._next.source}: the log has only {have}; the entries from number {have} on are missing"
            )

    def require_nothing_beyond(self, audit: AuditLog) -> None:
        """Adds a problem for each further entry that no checkpoint covers. Entries may be sealed during the
        verification, but a checkpoint soon covers them.
        """
        for entry in audit.sealed(self._peaks.size).items:
            newest = audit.checkpoint()
            covered = LogCheckpoint.parse(newest.note).size if newest.note else 0
            if entry.seq is not None and entry.seq >= covered:
                self._add_problem(
                    f"entry {entry.seq} was inserted: no checkpoint covers it: {entry.line[:400]}"
                )

    def report(self, unsealed: int | None, newest: int | None) -> AuditReport:
        return AuditReport(
            entries=self._peaks.size,
            unsealed=unsealed,
            checkpoint=newest,
            older=self._older.checkpoint.size if self._older else None,
            key=str(self._key) if self._key else None,
            problems=tuple(self._problems),
        )

    def _compare_roots(self) -> None:
        while self._next is not None and self._next.checkpoint.size == self._peaks.size:
            note, self._next = self._next, next(self._notes, None)
            if self._is_broken:
                continue
            if note.checkpoint.root == self._peaks.root:
                self._proved = self._peaks.size
                continue
            self._is_broken = True
            self._require_signature(note)
            first, last = self._proved, note.checkpoint.size - 1
            which = f"entry {first}" if first == last else f"one of the entries {first} to {last}"
            self._add_problem(f"{which} was changed, removed or inserted: {note.source} has another root")

    def _require_signature(self, note: _SignedCheckpoint) -> None:
        key = self._older_key if note is self._older else self._key
        if key is None:
            return
        try:
            LogCheckpoint.verify(note.text, key)
        except Invalid as error:
            hint = ""
            if note is self._older and key == self._key:
                hint = (
                    "; if the log's key was replaced since it was saved, or the registry was restored without"
                    " its key, also pass the key of that time: --checkpoint-key KEY"
                )
            self._add_problem(f"{note.source} is not signed with this key: {error.message}{hint}")

    def _add_problem(self, problem: str) -> None:
        if len(self._problems) < _MAX_PROBLEMS and problem not in self._problems:
            self._problems.append(problem)


def _sealed_lines(audit: AuditLog) -> Iterator[_SealedLine]:
    start = 0
    while entries := audit.sealed(start).items:
        for entry in entries:
            yield _SealedLine(entry.seq, entry.line, bytes.fromhex(entry.leaf or ""))
        start = (entries[-1].seq or 0) + 1


def _stored_notes(audit: AuditLog, below: int) -> Iterator[_SignedCheckpoint]:
    after = 0
    while notes := audit.checkpoints(after, MAX_SEALED).notes:
        for text in notes:
            note = _SignedCheckpoint.parse(text, "the checkpoint")
            after = note.checkpoint.size
            if after < below:
                yield note


def _lines_in(path: Path) -> Iterator[_SealedLine]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            text = line.rstrip("\n")
            fields = _parse(text)
            if "checkpoint" not in fields:
                seq = fields.get("seq")
                yield _SealedLine(seq if isinstance(seq, int) else None, text, None)


def _notes_in(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="\n") as file:
        found = (_parse(line) for line in file if line.startswith('{"checkpoint":'))
        return [str(fields["checkpoint"]) for fields in found]


def _parse(line: str) -> dict[str, object]:
    """Parses a line of an exported log. Raises `Invalid`."""
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise Invalid(f"not a line of an exported audit log: {line[:100]!a}")
    return fields
