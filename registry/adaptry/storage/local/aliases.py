"""The part of a local registry about aliases, which move only by compare-and-swap."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, NotFound
from adaptry.core.lifecycle import require_alias_allowed
from adaptry.core.refs import AdapterName, Ref, parse_alias, parse_stored_alias
from adaptry.registry.aliases import Aliases
from adaptry.registry.records import AliasInfo
from adaptry.storage.catalog import aliases, events, git_refs
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.aliases import AliasTarget
from adaptry.storage.catalog.case_conflicts import label_like
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.versions import VersionRecord, to_record
from adaptry.storage.local.context import RegistryContext

_INFO = TypeAdapter(AliasInfo)


@dataclass(frozen=True)
class LocalAliases(Aliases):
    """The aliases of a local registry."""

    context: RegistryContext

    def list(self, name: AdapterName) -> tuple[AliasInfo, ...]:
        with self.context.catalog.read() as tx:
            return aliases.infos(tx, self.context.readable_adapter(tx, name))

    def move(self, name: AdapterName, alias: str, to: Digest, was: int | None) -> AliasInfo:
        parse_stored_alias(alias)
        with self.context.write() as tx:
            adapter = self.context.writable_adapter(tx, name, "alias.move", alias=alias)
            target = to_record(self.context.resolve(tx, Ref.of_revision(name, to)))
            return self.context.run_once(tx, _INFO, lambda: self._move(tx, adapter, alias, target, was))

    def _move(
        self, tx: Transaction, adapter: AdapterRecord, alias: str, to: VersionRecord, was: int | None
    ) -> AliasInfo:
        found = aliases.find(tx, adapter, alias)
        _require_seen(adapter.name, alias, found, was)
        return point_alias(tx, adapter, alias, to, found, self.context.clock(), self.context.identity.name)

    def remove(self, name: AdapterName, alias: str, was: int) -> None:
        now = self.context.clock()
        with self.context.write() as tx:
            adapter = self.context.writable_adapter(tx, name, "alias.move", alias=alias)
            found = aliases.find(tx, adapter, alias)
            if found is None:
                raise NotFound(f"{name} has no alias {alias[:80]!a}")
            _require_seen(name, alias, found, was)
            aliases.remove(tx, adapter, alias, now, self.context.identity.name)
            events.record(
                tx,
                "alias.removed",
                at=now,
                by=self.context.identity.name,
                adapter=adapter,
                number=found.number,
                detail={"alias": alias, "was": found.digest, "generation": found.generation},
            )


def point_alias(
    tx: Transaction,
    adapter: AdapterRecord,
    alias: str,
    to: VersionRecord,
    found: AliasTarget | None,
    now: datetime,
    by: str,
) -> AliasInfo:
    """Points an alias, previously at `found`, to a version, with an event.

    Raises `Conflict` for a version that aliases may not name, `InvalidRef` for a new alias with a name that
    git refuses.
    """
    require_alias_allowed(alias, to.state, to.number)
    if found is None:
        parse_alias(alias)
        if like := label_like(tx, adapter.key, alias):
            raise Conflict(
                f"the alias {alias} differs only in capitals from {adapter.name}@{like}, which exists; write"
                f" {like}, or choose another name"
            )
    if found is None and (ref := git_refs.find(tx, adapter, alias)):
        raise Conflict(f"{adapter.name} has a {ref.kind} {alias}; choose another name for the alias")
    info = aliases.set_target(tx, adapter, alias, to, now, by)
    events.record(
        tx,
        "alias.moved",
        at=now,
        by=by,
        adapter=adapter,
        number=to.number,
        detail={
            "alias": alias,
            "was": found.digest if found else None,
            "was_number": found.number if found else None,
            "to": to.digest,
            "generation": info.generation,
        },
    )
    return info


def _require_seen(name: AdapterName, alias: str, found: AliasTarget | None, was: int | None) -> None:
    generation = found.generation if found else None
    if generation == was:
        return
    if found is None:
        raise Conflict(f"{name}@{alias} does not exist (any more); look again and retry")
    seen = f"generation {was}" if was is not None else "absent"
    raise Conflict(
        f"{name}@{alias} is version {found.number} ({found.digest.brief}, generation {found.generation}), "
        f"not {seen}; look again and retry"
    )
