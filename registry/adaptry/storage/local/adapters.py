"""The adapters role of a local registry: creates, finds, edits, renames and deletes adapters."""

from __future__ import annotations

from adaptry.core.access.actions import Action
from adaptry.core.errors import Conflict, PermissionDenied
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.registry.adapters import Adapters
from adaptry.registry.records import AdapterEdit, AdapterInfo, Event, Page
from adaptry.registry.sort_keys import parse_adapter_sort
from adaptry.storage.catalog import (
    adapter_pages,
    adapters,
    aliases,
    cursors,
    events,
)
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.local.context import RegistryContext, require_no_base


@dataclass(frozen=True)
class LocalAdapters(Adapters):
    """The adapters of a local registry."""

    context: RegistryContext

    def create(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        with self.context.write() as tx:
            self.context.require("push", name)
            if edit.visibility == "public":
                self.context.require("state.set", name)
            return self.context.run_once(tx, AdapterInfo, lambda: self._create(tx, name, edit))

    def _create(self, tx: Transaction, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        if adapters.find(tx, name):
            raise Conflict(f"{name} is taken; choose another name, or push to it")
        return adapters.info(tx, self.context.create_adapter_record(tx, name, edit))

    def get(self, name: AdapterName) -> AdapterInfo:
        with self.context.catalog.read_prepared() as tx:
            return adapters.info(tx, self.context.readable_adapter(tx, name))

    def list(
        self,
        namespace: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        *,
        sort: str = "name",
        reverse: bool = False,
    ) -> Page[AdapterInfo]:
        cursors.check_limit(limit)
        listing = adapter_pages.Listing(namespace, parse_adapter_sort(sort), reverse)
        with self.context.catalog.read_prepared() as tx:
            return adapter_pages.page(tx, self.context.read_scope(tx), listing, cursor, limit)

    def edit(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        now = self.context.clock()
        with self.context.write() as tx:
            adapter = self.context.readable_adapter(tx, name)
            for action in _actions_of(edit):
                self.context.require(action, name)
            seen = adapters.info(tx, adapter)
            adapter = adapters.edit(tx, adapter, edit, now)
            changed = {
                "description": edit.description,
                "tags": ", ".join(edit.tags) if edit.tags is not None else None,
                "visibility": edit.visibility,
            }
            was = {
                "description": seen.description,
                "tags": ", ".join(seen.tags),
                "visibility": seen.visibility,
            }
            before = {key: was[key] for key, value in changed.items() if value is not None}
            by = self.context.identity.name
            events.record(tx, "adapter.edited", at=now, by=by, adapter=adapter, detail=changed, before=before)
            return adapters.info(tx, adapter)

    def rename(self, name: AdapterName, to: AdapterName) -> AdapterInfo:
        from adaptry.storage.local import removal  # not needed by a listing

        now = self.context.clock()
        with self.context.write() as tx:
            adapter = self.context.writable_adapter(tx, name, "delete")
            if not self.context.may("push", to):
                raise PermissionDenied(
                    f"{self.context.identity.name} may not push to {to}, and so may not rename {name} to it"
                )
            removal.require_movable(self.context, tx, adapter, to)
            if adapters.find(tx, to):
                raise Conflict(f"{to} is taken; choose another name")
            require_no_base(tx, to)
            renamed = adapters.rename(tx, adapter, to, now)
            if to.namespace != name.namespace:
                from adaptry.storage.local.quotas import require_namespace_within  # not needed by a listing

                require_namespace_within(self.context, tx, to.namespace)
            removal.require_admissible(self.context, tx, renamed, name)
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
        from adaptry.storage.catalog import worker_reports  # not needed by a listing
        from adaptry.storage.local import removal

        now = self.context.clock()
        with self.context.write() as tx:
            adapter = self.context.writable_adapter(tx, name, "delete")
            removal.require_deletable(self.context, tx, adapter)
            held = aliases.infos(tx, adapter)
            if held:
                names = ", ".join(info.alias for info in held)
                raise Conflict(
                    f"{name} is in use by {names}; remove the aliases first: adaptry alias rm"
                    f" {name}@{held[0].alias}"
                )
            if serving := worker_reports.workers_with_adapter(tx, adapter.key):
                raise Conflict(
                    f"{name} is loaded by {', '.join(serving[:5])}; revoke its versions, which unloads them"
                    f" (adaptry revoke {name}@VERSION --reason TEXT), or declare workers whose engine has"
                    " stopped: adaptry workers declare-gone NAME --reason TEXT"
                )
            adapters.mark_deleted(tx, adapter, now)
            events.record(tx, "adapter.deleted", at=now, by=self.context.identity.name, adapter=adapter)

    def history(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[Event]:
        cursors.check_limit(limit)
        with self.context.catalog.read() as tx:
            return events.page(
                tx, self.context.identity, self.context.readable_adapter(tx, name), cursor, limit
            )


def _actions_of(edit: AdapterEdit) -> tuple[Action, ...]:
    """The action that an edit requires: changing the visibility requires more than changing texts."""
    says_something = edit.description is not None or edit.tags is not None
    shows = edit.visibility is not None
    return (*(("push",) if says_something or not shows else ()), *(("state.set",) if shows else ()))
