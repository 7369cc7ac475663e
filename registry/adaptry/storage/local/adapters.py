"""The part of a local registry about adapters: created, found, edited, renamed, deleted."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter

from adaptry.core.errors import Conflict, PermissionDenied
from adaptry.core.identity import require_write
from adaptry.core.refs import AdapterName
from adaptry.registry.adapters import Adapters
from adaptry.registry.records import AdapterEdit, AdapterInfo, Event, Page
from adaptry.storage.catalog import adapters, aliases, commits, cursors, events, worker_reports
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.local.context import RegistryContext, require_no_base

_INFO = TypeAdapter(AdapterInfo)


@dataclass(frozen=True)
class LocalAdapters(Adapters):
    """The adapters of a local registry."""

    context: RegistryContext

    def create(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        with self.context.catalog.write() as tx:
            require_write(self.context.identity, name)
            return self.context.run_once(tx, _INFO, lambda: self._create(tx, name, edit))

    def _create(self, tx: Transaction, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        if adapters.find(tx, name):
            raise Conflict(f"{name} is taken; choose another name, or push to it")
        return adapters.info(tx, self.context.create_adapter_record(tx, name, edit))

    def get(self, name: AdapterName) -> AdapterInfo:
        with self.context.catalog.read() as tx:
            return adapters.info(tx, self.context.readable_adapter(tx, name))

    def list(
        self, namespace: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[AdapterInfo]:
        cursors.check_limit(limit)
        with self.context.catalog.read() as tx:
            return adapters.page(tx, self.context.read_scope(tx), namespace, cursor, limit)

    def edit(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        now = self.context.clock()
        with self.context.catalog.write() as tx:
            adapter = adapters.edit(tx, self.context.writable_adapter(tx, name), edit, now)
            changed = {
                "description": edit.description,
                "tags": ", ".join(edit.tags) if edit.tags is not None else None,
                "visibility": edit.visibility,
            }
            events.record(
                tx, "adapter.edited", at=now, by=self.context.identity.name, adapter=adapter, detail=changed
            )
            return adapters.info(tx, adapter)

    def rename(self, name: AdapterName, to: AdapterName) -> AdapterInfo:
        now = self.context.clock()
        with self.context.catalog.write() as tx:
            adapter = self.context.writable_adapter(tx, name)
            if not self.context.identity.may_write(to):
                raise PermissionDenied(
                    f"{self.context.identity.name} may not write to {to.namespace!r}, so not rename into it"
                )
            if adapters.find(tx, to):
                raise Conflict(f"{to} is taken; choose another name")
            require_no_base(tx, to)
            renamed = adapters.rename(tx, adapter, to, now)
            events.record(
                tx,
                "adapter.renamed",
                at=now,
                by=self.context.identity.name,
                adapter=renamed,
                detail={"was": name, "to": to},
            )
            return adapters.info(tx, renamed)

    def renamed_to(self, name: AdapterName) -> AdapterName | None:
        with self.context.catalog.read() as tx:
            adapter = adapters.find_renamed(tx, name)
        return (
            adapter.name
            if adapter and self.context.identity.may_read(adapter.name, adapter.visibility)
            else None
        )

    def delete(self, name: AdapterName) -> None:
        now = self.context.clock()
        with self.context.catalog.write() as tx:
            adapter = self.context.writable_adapter(tx, name)
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
            events.record(tx, "adapter.deleted", at=now, by=self.context.identity.name, adapter=adapter)

    def history(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[Event]:
        cursors.check_limit(limit)
        with self.context.catalog.read() as tx:
            return events.page(
                tx, self.context.identity, self.context.readable_adapter(tx, name), cursor, limit
            )
