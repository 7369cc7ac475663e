"""The evidence role of a local registry: adds and lists evidence, and withdraws it with a reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, Invalid, NotFound
from adaptry.core.evidence.values import EvidenceFile
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import FileEntry
from adaptry.core.refs import Ref
from adaptry.registry.evidence import (
    Evidence,
    EvidenceAddition,
    EvidenceInfo,
    EvidencePart,
    WithdrawalRequest,
    WithdrawalResult,
)
from adaptry.registry.records import Page
from adaptry.storage.catalog import bases, cursors, events, evidence, files
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.version_info import Columns
from adaptry.storage.catalog.versions import to_record
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.open_revisions import check_start


@dataclass(frozen=True)
class LocalEvidence(Evidence):
    """The evidence of a local registry."""

    context: RegistryContext

    def add(self, ref: Ref, file: EvidenceFile) -> EvidenceAddition:
        with self.context.write() as tx:
            adapter = self.context.writable_adapter(tx, ref.name, "evidence.add")
            columns = self.context.resolve(tx, ref)
            stored = files.sizes(tx, ref.name, file.stored_files)
            if missing := file.stored_files - stored.keys():
                raise Conflict(
                    f"{min(missing).brief} is not among the files of {ref.name}; upload the results files"
                    " before their values are added"
                )
            files.clear_unneeded(tx, ref.name, file.stored_files)
            return self.context.run_once(tx, EvidenceAddition, lambda: self._add(tx, adapter, columns, file))

    def _add(
        self, tx: Transaction, adapter: AdapterRecord, columns: Columns, file: EvidenceFile
    ) -> EvidenceAddition:
        version, now, by = to_record(columns), self.context.clock(), self.context.identity.name
        rows = evidence.append(tx, version, columns.base_id, file, now, by)
        if rows:
            detail = {
                "format": file.format,
                "file": file.digest,
                "values": len(rows),
                "content": evidence.content_digest(rows),
            }
            events.record(
                tx, "evidence.added", at=now, by=by, adapter=adapter, number=version.number, detail=detail
            )
        known = len(set(file.values)) - len(rows)
        return EvidenceAddition(
            subject=version.digest, number=version.number, file=file.digest, added=len(rows), known=known
        )

    def list(
        self,
        ref: Ref,
        *,
        task: str | None = None,
        metric: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[EvidenceInfo]:
        cursors.check_limit(limit)
        with self.context.catalog.read() as tx:
            version = to_record(self.context.resolve(tx, ref))
            found = evidence.page(tx, version, task, metric, cursor, limit)
            return found.model_copy(update={"items": self._without_hidden_bases(tx, found.items)})

    def newest(self, refs: Sequence[Ref], limit: int) -> tuple[tuple[EvidenceInfo, ...], ...]:
        cursors.check_limit(limit)
        with self.context.catalog.read() as tx:
            keys = [columns.id for columns in self.context.resolve_all(tx, refs)]
            found = evidence.newest(tx, keys, limit)
            shown = self._without_hidden_bases(tx, tuple(chain.from_iterable(found.values())))
        by_id = {item.id: item for item in shown}
        return tuple(tuple(by_id[item.id] for item in found[key]) for key in keys)

    def get(self, id: int) -> EvidenceInfo:
        with self.context.catalog.read() as tx:
            return self._without_hidden_bases(tx, (self._readable(tx, id),))[0]

    def files(self, id: int) -> tuple[FileEntry, ...]:
        with self.context.catalog.read() as tx:
            found = self._readable(tx, id)
            parts = {part: digest for part, digest in _parts(found).items() if digest is not None}
            sizes = files.sizes(tx, found.name, parts.values())
        return tuple(
            FileEntry(path=part, size=sizes[digest], sha256=digest)
            for part, digest in parts.items()
            if digest in sizes
        )

    def read_file(self, id: int, part: EvidencePart, start: int = 0) -> Iterator[bytes]:
        with self.context.catalog.read() as tx:
            digest = _parts(self._readable(tx, id))[part]
        if digest is None:
            raise NotFound(f"evidence {id} has no stored {part}")
        what = f"the {part} of evidence {id}"
        check_start(start, self.context.stored_size(digest, what), what)
        return self.context.stored_chunks(digest, start, what)

    def withdraw(self, id: int, withdrawal: WithdrawalRequest) -> WithdrawalResult:
        with self.context.write() as tx:
            found = self._readable(tx, id)
            adapter = self.context.writable_adapter(tx, found.name, "evidence.add")
            if found.file is None:
                raise Invalid(
                    f"evidence {id} is a logged metric, which cannot be withdrawn; log the right value,"
                    f" which replaces it: adaptry metrics log {found.name}@{found.number}"
                    f" {found.metric}=VALUE"
                )
            return self.context.run_once(
                tx, WithdrawalResult, lambda: self._withdraw(tx, adapter, found, withdrawal)
            )

    def _withdraw(
        self, tx: Transaction, adapter: AdapterRecord, found: EvidenceInfo, withdrawal: WithdrawalRequest
    ) -> WithdrawalResult:
        ids = evidence.ids_in_force_of_value(tx, found.id)
        if withdrawal.whole_file and found.file is not None:
            ids = evidence.ids_in_force_of_file(tx, evidence.version_key(tx, found.id), found.file)
        if ids:
            now, by = self.context.clock(), self.context.identity.name
            evidence.withdraw(tx, ids, now, by, withdrawal.reason)
            detail = {
                "evidence": found.id,
                "file": found.file,
                "values": len(ids),
                "ids": evidence.ids_digest(ids),
                "reason": withdrawal.reason,
            }
            events.record(
                tx,
                "evidence.withdrawn",
                at=now,
                by=by,
                adapter=adapter,
                number=found.number,
                detail=detail,
            )
        return WithdrawalResult(withdrawn=len(ids))

    def _readable(self, tx: Transaction, id: int) -> EvidenceInfo:
        found = evidence.find(tx, id)
        if found is not None:
            try:
                self.context.readable_adapter(tx, found.name)
            except NotFound:
                found = None
        if found is None:
            raise NotFound(f"no evidence {id}; `adaptry evidence ls REF` shows that of a version")
        return found

    def _without_hidden_bases(
        self, tx: Transaction, found: tuple[EvidenceInfo, ...]
    ) -> tuple[EvidenceInfo, ...]:
        """The evidence, without bases that the caller may not see."""
        access = bases.access(tx, {item.base for item in found if item.base})
        hidden = {id for id, one in access.items() if not one.allows(self.context.identity)}
        return tuple(
            item.model_copy(update={"base": None}) if item.base in hidden else item for item in found
        )


def _parts(found: EvidenceInfo) -> dict[EvidencePart, Digest | None]:
    return {"file": found.file, "samples": found.samples}
