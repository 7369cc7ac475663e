"""The bases role of a local registry: registered by content, with names and, optionally, stored weights.

When a base is registered, or shown to other callers, versions that declared it are checked again at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, CorruptData, Invalid, NotFound, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import parse_base_name
from adaptry.registry.bases import Bases, unknown_base
from adaptry.storage.catalog import (
    bases,
    cursors,
    damage,
    events,
    files,
    pending_deletes,
    unresolved_bases,
    versions,
)
from adaptry.storage.catalog.access import EVERYTHING
from adaptry.storage.catalog.case_conflicts import base_like, fold
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.shared_names import adapter_of_name, hiding
from adaptry.storage.local.admission import (
    check_against_base,
    find_stored_base,
    known_inspections,
    open_stored,
)
from adaptry.storage.local.context import RegistryContext, require_all_undamaged
from adaptry.storage.local.open_revisions import check_start

if TYPE_CHECKING:
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.core.manifest import FileEntry
    from adaptry.registry.base_info import BaseEdit, BaseInfo
    from adaptry.registry.records import Page

_BATCH = 50
_MAX_NAMES = 16


@dataclass(frozen=True)
class LocalBases(Bases):
    """The bases of a local registry."""

    context: RegistryContext

    def put(self, record: BaseRecord, names: tuple[str, ...] = ()) -> BaseInfo:
        from adaptry.bases.fingerprinting.base_fingerprint import check_identity  # no push needs it

        self.context.require_base_write()
        _check_names(names)
        check_identity(record)
        with self.context.write() as tx:
            merged = self._put(tx, record, names)
        self._resolve_pending(merged)
        with self.context.catalog.read() as tx:
            return bases.info(tx, self.context.read_scope(tx), record.id)

    def store_generated_file(self, chunks: Iterable[bytes | memoryview]) -> tuple[Digest, int]:
        """Stores bytes that were computed on this machine, for a base that will be adopted later; returns
        their digest and size.

        They replace a copy that is marked as damaged. Raises `StorageFull`, and the errors of `chunks`.
        """
        digest, size = self.context.blobs.ingest(chunks)
        with self.context.catalog.read() as tx:
            is_marked = damage.damage_reason(tx, digest) is not None
        if is_marked:
            with self.context.write() as tx:
                damage.clear_damage(tx, digest)
        return digest, size

    def adopt(self, record: BaseRecord, names: tuple[str, ...], files_: tuple[FileEntry, ...]) -> BaseInfo:
        """Registers, names and stores a base that was computed on this machine and whose files are already
        stored, in one transaction, so that no reader sees it incomplete. Only for processes with direct
        access to the stores: remote callers may not declare that a store has files.

        Raises the errors of `bases.put` and `bases.store`.
        """
        from adaptry.bases.fingerprinting.base_fingerprint import check_identity  # no push needs it

        self.context.require_base_write()
        _check_names(names)
        check_identity(record)
        with self.context.write() as tx:
            # Bytes without an owner may be gone, or in deletion: check them in this transaction, which
            # excludes a concurrent deletion.
            if any(pending_deletes.is_deleting(tx, entry.sha256) for entry in files_):
                raise Unavailable("some of these files are being deleted; try again in a moment")
            require_all_undamaged(tx, {entry.path: entry.sha256 for entry in files_})
            lost = [entry.path for entry in files_ if not self.context.blobs.has(entry.sha256)]
            if lost:
                raise NotFound(f"{', '.join(lost)} was garbage collected in the meantime; create it again")
            merged = self._put(tx, record, names)
            for entry in files_:
                files.add_owned(tx, record.id, entry.sha256, entry.size, self.context.identity.name)
            self._store(tx, record.id, files_)
        self._resolve_pending(merged)
        return self.get(str(record.id))

    def get(self, key: str) -> BaseInfo:
        with self.context.catalog.read() as tx:
            scope = self.context.read_scope(tx)
            found = bases.find(tx, scope, key)
            if not found:
                raise unknown_base(key)
            if len(found) > 1:
                raise Conflict(f"several bases begin with {key}; give more digits")
            return bases.info(tx, scope, found[0])

    def record(self, id: Digest) -> BaseRecord:
        with self.context.catalog.read_prepared() as reads:
            return self._record(reads, id)

    def list(self, cursor: str | None = None, limit: int = 50) -> Page[BaseInfo]:
        cursors.check_limit(limit)
        with self.context.catalog.read() as tx:
            return bases.page(tx, self.context.read_scope(tx), cursor, limit)

    def of_architecture(self, architecture: Digest) -> tuple[BaseInfo, ...]:
        with self.context.catalog.read() as tx:
            return bases.of_architecture(tx, self.context.read_scope(tx), architecture)

    def store(self, id: Digest, files_: tuple[FileEntry, ...]) -> BaseInfo:
        self.context.require_base_write()
        with self.context.write() as tx:
            self._record(tx, id)
            if hidden := hiding(tx, bases.names(tx, id)):
                raise Conflict(_name_taken(hidden[0], hidden[0]))
            have = files.sizes(tx, id, [entry.sha256 for entry in files_])
            missing = [entry.path for entry in files_ if have.get(entry.sha256) != entry.size]
            if missing:
                raise NotFound(f"the base has no bytes yet for {', '.join(missing)}; upload them first")
            self._store(tx, id, files_)
            return bases.info(tx, self.context.read_scope(tx), id)

    def edit(self, id: Digest, edit: BaseEdit) -> BaseInfo:
        self.context.require_base_write()
        with self.context.write() as tx:
            record = self._record(tx, id)
            was = bases.info(tx, self.context.read_scope(tx), id).visibility
            is_changed = edit.visibility is not None and edit.visibility != was
            if edit.visibility is not None and is_changed:
                bases.set_visibility(tx, id, edit.visibility)
                detail = {"id": id, "visibility": edit.visibility, "was": was}
                events.record(
                    tx, "base.edited", at=self.context.clock(), by=self.context.identity.name, detail=detail
                )
        if is_changed:  # users who could not see the base may have pushed versions on it
            self._resolve_pending(record)
        with self.context.catalog.read() as tx:
            return bases.info(tx, self.context.read_scope(tx), id)

    def read_file(self, id: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        with self.context.catalog.read() as tx:
            self._record(tx, id)
            file = bases.stored_file(tx, id, path)
        if file is None:
            raise NotFound(f"no file {path[:80]!a} is stored of base {id.brief}")
        what = f"{path} of base {id.brief}"
        check_start(start, self.context.stored_size(file, what), path)
        return self.context.stored_chunks(file, start, what)

    def _put(self, tx: Transaction, record: BaseRecord, names: tuple[str, ...]) -> BaseRecord:
        """Stores the base's record and names. Raises `Conflict` if another base has one of the names."""
        now, by = self.context.clock(), self.context.identity.name
        before = bases.record(tx, record.id)
        taken = {name: _owner(tx, name) for name in names}
        for name, owner in taken.items():
            if owner not in (None, record.id):
                raise Conflict(f"{name} already names another base, {owner}; choose another name")
            if owner is None and (adapter := adapter_of_name(tx, name)):
                raise Conflict(_name_taken(name, adapter))
        fresh = _distinct_names(tx, record.id, [name for name, owner in taken.items() if owner is None])
        merged = _merged(before, record) if before else record
        if merged != before:
            bases.put(tx, merged, now, by)
        bases.add_names(tx, record.id, fresh)
        if merged != before or fresh:
            kind = "base.updated" if before else "base.registered"
            detail = {"id": record.id, "names": ", ".join(fresh) or None}
            events.record(tx, kind, at=now, by=by, detail=detail)
        return merged

    def _store(self, tx: Transaction, id: Digest, files_: tuple[FileEntry, ...]) -> None:
        """Stores the files of a base. Does nothing if the base has exactly these files already."""
        known = bases.info(tx, self.context.read_scope(tx), id).stored
        if set(known) == set(files_):
            return
        files.clear_unneeded(tx, id, [entry.sha256 for entry in files_])
        bases.store(tx, id, files_)
        detail = {"id": id, "bytes": sum(entry.size for entry in files_)}
        events.record(
            tx, "base.stored", at=self.context.clock(), by=self.context.identity.name, detail=detail
        )

    def _record(self, tx: Reads, id: Digest) -> BaseRecord:
        record = bases.record(tx, id) if self.context.sees_base(tx, id) else None
        if record is None:
            raise NotFound(f"no base {id.brief}; `adaptry base ls` shows those that are registered")
        return record

    def _resolve_pending(self, record: BaseRecord) -> None:
        """Checks versions that declared this base again, in batches; versions pushed in the meantime have
        already been checked against it.
        """
        after = 0
        while True:
            with self.context.catalog.read() as tx:
                known = bases.names(tx, record.id)
                batch = unresolved_bases.pending_for_base(tx, record.id, known, after, _BATCH)
                inspections = [known_inspections(tx, item.manifest) for item in batch]
            if not batch:
                return
            base_checks = []
            for item, found in zip(batch, inspections, strict=True):
                try:
                    with self.context.catalog.read() as tx:
                        require_all_undamaged(tx, {entry.path: entry.sha256 for entry in item.manifest.files})
                    adapter = open_stored(self.context.blobs, item.manifest)
                except (CorruptData, NotFound):  # it stays declared until it is repaired or pushed again
                    continue
                with self.context.catalog.read() as tx:
                    claim = find_stored_base(tx, item.manifest, adapter.spec.base_name, item.bound_base)
                base_checks.append((item, check_against_base(adapter, claim, record, found)))
            with self.context.write() as tx:
                now = self.context.clock()
                for item, base_check in base_checks:
                    versions.set_base_check(tx, item.key, base_check)
                    events.record(
                        tx,
                        "version.rechecked",
                        at=now,
                        by=self.context.identity.name,
                        adapter=item.adapter,
                        number=item.number,
                        detail={"base": record.id, "base_status": base_check.status},
                    )
            after = batch[-1].key


def _name_taken(name: str, adapter: str) -> str:
    return (
        f"{name} cannot be a base's name, since {adapter} is an adapter and loaders would get that:"
        f" choose another --name, or free this one with `adaptry rename {adapter} NEW` or, if it is not"
        f" needed, `adaptry delete {adapter}`"
    )


def _owner(tx: Transaction, name: str) -> Digest | None:
    found = bases.find(tx, EVERYTHING, name)
    return found[0] if found else None


def _distinct_names(tx: Transaction, id: Digest, fresh: list[str]) -> list[str]:
    """The names that differ from the base's own names, and from each other, by more than case.

    Raises `Conflict` for a name that differs only in case from a name of another base.
    """
    found: dict[str, str] = {}
    for name in fresh:
        like = base_like(tx, name)
        if like is not None and like[1] != id.hex:
            raise Conflict(
                f"{name} differs only in case from {like[0]}, which names another base; choose another name"
            )
        if like is None:
            found.setdefault(fold(name), name)
    return list(found.values())


def _check_names(names: tuple[str, ...]) -> None:
    """Raises `Invalid` for names that are not allowed. A name that looks like an id would hide the base with
    that id.
    """
    if len(names) > _MAX_NAMES:
        raise Invalid(f"a base can get at most {_MAX_NAMES} names at once")
    for name in names:
        parse_base_name(name)
        if len(name) >= 12 and set(name) <= set("0123456789abcdef"):
            raise Invalid(f"not a name for a base: {name[:80]!a} looks like the beginning of an id")


def _merged(known: BaseRecord, new: BaseRecord) -> BaseRecord:
    """A base's record with new data added; shapes and sketches are its identity, so they stay."""
    if known.roots and new.roots and known.roots.exact != new.roots.exact:
        raise Conflict(
            f"a base that looks like this one ({known.id.brief}) is registered, and their full digests"
            " differ: one of them was changed in a few places; check which one you need"
        )
    roots = known.roots
    if new.roots and (roots is None or roots.canon is None):
        roots = new.roots
    return known.model_copy(
        update={
            "roots": roots,
            "tokenizer": known.tokenizer or new.tokenizer,
            "vocabulary": known.vocabulary or new.vocabulary,
            "tokenization": known.tokenization or new.tokenization,
            "chat_template": known.chat_template or new.chat_template,
            "file_hashes": {**known.file_hashes, **new.file_hashes},
        }
    )
