"""The part of a local registry about adapters: created, found, edited, renamed, deleted."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.errors import Conflict, PermissionDenied
from adaptry.core.identity import require_write
from adaptry.core.refs import AdapterName
from adaptry.registry.records import AdapterEdit, AdapterInfo, Event, Page
from adaptry.storage.catalog import adapters, aliases, commits, cursors, events, worker_reports
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.local.context import RegistryContext, require_no_base

_INFO = TypeAdapter(AdapterInfo)


class LocalAdapters(RegistryContext):
    """`create_adapter` to `delete_adapter`, `moved`, and `history`."""

    def create_adapter(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        with self.catalog.write() as tx:
            require_write(self.identity, name)
            return self.run_once(tx, _INFO, lambda: self._create(tx, name, edit))

    def _create(self, tx: Transaction, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        if adapters.find(tx, name):
            raise Conflict(f"{name} is taken; choose another name, or push to it")
        return adapters.info(tx, self.create_adapter_record(tx, name, edit))

    def adapter(self, name: AdapterName) -> AdapterInfo:
        with self.catalog.read() as tx:
            return adapters.info(tx, self.readable_adapter(tx, name))

    def adapters(
        self, namespace: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[AdapterInfo]:
        cursors.check_limit(limit)
        with self.catalog.read() as tx:
            return adapters.page(tx, self.read_scope(tx), namespace, cursor, limit)

    def edit_adapter(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        now = self.clock()
        with self.catalog.write() as tx:
            adapter = adapters.edit(tx, self.writable_adapter(tx, name), edit, now)
            changed = {
                "description": edit.description,
                "tags": ", ".join(edit.tags) if edit.tags is not None else None,
                "visibility": edit.visibility,
            }
            events.record(
                tx, "adapter.edited", at=now, by=self.identity.name, adapter=adapter, detail=changed
            )
            return adapters.info(tx, adapter)

    def rename_adapter(self, name: AdapterName, to: AdapterName) -> AdapterInfo:
        now = self.clock()
        with self.catalog.write() as tx:
            adapter = self.writable_adapter(tx, name)
            if not self.identity.may_write(to):
                raise PermissionDenied(
                    f"{self.identity.name} may not write to {to.namespace!r}, so not rename into it"
                )
            if adapters.find(tx, to):
                raise Conflict(f"{to} is taken; choose another name")
            require_no_base(tx, to)
            renamed = adapters.rename(tx, adapter, to, now)
            events.record(
                tx,
                "adapter.renamed",
                at=now,
                by=self.identity.name,
                adapter=renamed,
                detail={"was": name, "to": to},
            )
            return adapters.info(tx, renamed)

    def renamed_to(self, name: AdapterName) -> AdapterName | None:
        with self.catalog.read() as tx:
            adapter = adapters.find_renamed(tx, name)
        return adapter.name if adapter and self.identity.may_read(adapter.name, adapter.visibility) else None

    def delete_adapter(self, name: AdapterName) -> None:
        now = self.clock()
        with self.catalog.write() as tx:
            adapter = self.writable_adapter(tx, name)
            held = aliases.infos(tx, adapter)
            if held:
                names = ", ".join(info.alias for info in held)
                raise Conflict(f"{name} is in use through {names}; remove the aliases first")
            if serving := worker_reports.workers_with_adapter(tx, adapter.key):
                raise Conflict(
                    f"{name} is loaded by {', '.join(serving[:5])}; let them unload it, or forget those that"
                    " are gone: adaptry workers forget NAME"
                )
            commits.forget(tx, adapter)
            adapters.mark_deleted(tx, adapter, now)
            events.record(tx, "adapter.deleted", at=now, by=self.identity.name, adapter=adapter)

    def history(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[Event]:
        cursors.check_limit(limit)
        with self.catalog.read() as tx:
            return events.page(tx, self.identity, self.readable_adapter(tx, name), cursor, limit)
