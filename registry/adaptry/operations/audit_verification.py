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
_NO_LIMIT = 1 << 62  # more entries than any log has

Report = Callable[[str], None]
"""Adds a problem to those that are reported."""


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
    problems: list[str] = []
    last = _read_note(newest.note, "the newest checkpoint", problems.append) if newest.note else None
    size = last.checkpoint.size if last else _NO_LIMIT if newest.note else 0
    lines = (line for line in _sealed_lines(audit) if line.seq is None or line.seq < size)
    notes = [*_stored_notes(audit, size, problems.append), *([last] if last else [])]
    check = _Check(key, notes, older, older_key or key, problems)
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
    texts = _notes_in(path)
    if not texts:
        raise Invalid(f"{path} has no checkpoint at its end: it is incomplete, or was exported with a filter")
    problems: list[str] = []
    found = (_read_note(text, "the checkpoint", problems.append) for text in texts)
    notes = [note for note in found if note is not None]
    check = _Check(key, notes, older, older_key or key, problems)
    for line in _lines_in(path):
        check.add(line)
    check.finish()
    return check.report(None, notes[-1].checkpoint.size if notes else None)


def write_export(audit: AuditLog, filters: AuditFilter, write: Callable[[str], object]) -> int:
    """Writes each entry as a line, and after the whole log its checkpoints; returns the number of entries.

    The log records the export. Raises `PermissionDenied`, `Invalid`.
    """
    newest = audit.begin_export(filters)
    if not filters.is_everything or newest.note is None:
        return _write_pages(audit, filters, write)
    altered: list[str] = []  # verifying the exported file finds the same
    last = _read_note(newest.note, "the newest checkpoint", altered.append)
    size = last.checkpoint.size if last else _NO_LIMIT
    count = 0
    for line in _sealed_lines(audit):
        if line.seq is not None and line.seq >= size:
            break
        write(line.text)
        count += 1
    for text in [*(note.text for note in _stored_notes(audit, size, altered.append)), newest.note]:
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
        problems: list[str],
    ) -> None:
        self._key, self._older_key = key, older_key
        self._older = _SignedCheckpoint.parse(older, "the older checkpoint") if older is not None else None
        every = [*notes, *([self._older] if self._older else [])]
        self._notes = iter(sorted(every, key=lambda note: note.checkpoint.size))
        self._next = next(self._notes, None)
        self._last = max(every, key=lambda note: note.checkpoint.size, default=None)
        self._size = 0  # lines, with the missing ones
        self._peaks = Peaks()  # of the lines before the first missing one
        self._proved = 0  # entries that a checkpoint has confirmed
        self._is_broken = False  # later roots prove nothing: an earlier line differs
        self._problems = problems
        for note in filter(None, (self._last, self._older)):
            self._require_signature(note)

    def add(self, line: _SealedLine) -> None:
        self._compare_roots()
        expected = self._size
        computed = leaf_hash(line.text.encode())
        if line.seq is None or line.seq < expected:
            self._add_problem(
                f"a line of the file was inserted after entry {expected - 1}: {line.text[:200]}"
            )
            self._is_broken = True
            return
        if self._last is not None and line.seq >= self._last.checkpoint.size:
            self._add_problem(f"entry {line.seq} was inserted: no checkpoint covers it: {line.text[:400]}")
            return
        if line.seq > expected:
            is_one = line.seq == expected + 1
            missing = f"entry {expected} is" if is_one else f"entries {expected} to {line.seq - 1} are"
            self._add_problem(f"{missing} missing")
            self._is_broken = True
            self._size = line.seq
            self._compare_roots()
        if line.leaf is not None and line.leaf != computed:
            self._add_problem(
                f"entry {line.seq} was changed after it was sealed; it now reads: {line.text[:400]}"
            )
        self._size += 1
        if not self._is_broken:
            self._peaks.append(line.leaf or computed)

    def finish(self) -> None:
        self._compare_roots()
        if self._next is not None:
            have = self._size
            self._add_problem(
                f"{self._next.source}: the log has only {have}; the entries from number {have} on are missing"
            )

    def require_nothing_beyond(self, audit: AuditLog) -> None:
        """Adds a problem for each further entry that no checkpoint covers. Entries may be sealed during the
        verification, but a checkpoint soon covers them.
        """
        for entry in audit.sealed(self._size).items:
            newest = audit.checkpoint()
            last = (
                _read_note(newest.note, "the newest checkpoint", self._add_problem) if newest.note else None
            )
            covered = last.checkpoint.size if last else 0
            if entry.seq is not None and entry.seq >= covered:
                self._add_problem(
                    f"entry {entry.seq} was inserted: no checkpoint covers it: {entry.line[:400]}"
                )

    def report(self, unsealed: int | None, newest: int | None) -> AuditReport:
        return AuditReport(
            entries=self._size,
            unsealed=unsealed,
            checkpoint=newest,
            older=self._older.checkpoint.size if self._older else None,
            key=str(self._key) if self._key else None,
            problems=tuple(self._problems),
        )

    def _compare_roots(self) -> None:
        while self._next is not None and self._next.checkpoint.size <= self._size:
            note, self._next = self._next, next(self._notes, None)
            if self._is_broken:
                continue
            if note.checkpoint.root == self._peaks.root:
                self._proved = self._size
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
            yield _SealedLine(entry.seq, entry.line, _hash_of(entry.leaf))
        start = (entries[-1].seq or 0) + 1


def _hash_of(leaf: str | None) -> bytes:
    """The stored hash of an entry; empty, which equals no hash, if someone wrote other text there."""
    try:
        return bytes.fromhex(leaf or "")
    except ValueError:
        return b""


def _stored_notes(audit: AuditLog, below: int, report: Report) -> Iterator[_SignedCheckpoint]:
    """The checkpoints of fewer than `below` entries. The rows may have been altered: they need not be in
    order, and the loop must end anyway.
    """
    after, start = 0, -1
    while after > start and (notes := audit.checkpoints(after, MAX_SEALED).notes):
        start = after
        for text in notes:
            note = _read_note(text, "the checkpoint", report)
            if note is None:
                continue
            if note.checkpoint.size <= after:
                size = note.checkpoint.size
                report(f"the checkpoint of {size} entries was changed or moved: it follows that of {after}")
                continue
            after = note.checkpoint.size
            if after < below:
                yield note


def _read_note(text: str, source: str, report: Report) -> _SignedCheckpoint | None:
    """The checkpoint in a note of the log; None, after a report, if someone wrote other text there."""
    try:
        return _SignedCheckpoint.parse(text, source)
    except Invalid as error:
        report(f"{source} was changed: {error.message}; it begins with {text[:80]!a}")
        return None


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
