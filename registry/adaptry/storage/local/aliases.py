"""The aliases role of a local registry. An alias moves only by compare-and-swap."""

from __future__ import annotations

from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict
from adaptry.core.gates.decision import refusal
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import require_alias_allowed
from adaptry.core.refs import AdapterName, Ref, parse_alias, parse_stored_alias
from adaptry.registry import records
from adaptry.registry.aliases import AS_POLICIES_SAY, Aliases, MoveRequest, unknown_alias
from adaptry.storage.catalog import aliases, events, git_refs, promotions
from adaptry.storage.catalog.aliases import AliasTarget
from adaptry.storage.catalog.case_conflicts import label_like
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.versions import to_record
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.gate_facts import Move
from adaptry.storage.local.gates import decide, is_rollback, read_decided, write_decided


@dataclass(frozen=True)
class LocalAliases(Aliases):
    """The aliases of a local registry."""

    context: RegistryContext

    def list(self, name: AdapterName) -> tuple[records.AliasInfo, ...]:
        with self.context.catalog.read() as tx:
            return aliases.infos(tx, self.context.readable_adapter(tx, name))

    def get(self, name: AdapterName, alias: str) -> records.AliasInfo:
        with self.context.catalog.read() as tx:
            found = aliases.infos(tx, self.context.readable_adapter(tx, name), alias)
        if not found:
            raise unknown_alias(name, alias)
        return found[0]

    def move(
        self,
        name: AdapterName,
        alias: str,
        to: Digest,
        was: int | None,
        request: MoveRequest = AS_POLICIES_SAY,
    ) -> records.AliasInfo:
        parse_stored_alias(alias)
        read_decided(
            self.context,
            lambda tx: decide(self.context, tx, self._requested(tx, name, alias, to, request)),
        )

        def make(tx: Transaction) -> records.AliasInfo:
            move = self._requested(tx, name, alias, to, request)
            return self.context.run_once(tx, records.AliasInfo, lambda: self._move(tx, move, was))

        return write_decided(self.context, make)

    def _requested(
        self, tx: Transaction, name: AdapterName, alias: str, to: Digest, request: MoveRequest
    ) -> Move:
        """The requested move. Raises `NotFound`, `PermissionDenied`."""
        adapter = self.context.writable_adapter(tx, name, "alias.move", alias=alias)
        if request.override is not None:
            self.context.require("policy.override", name, alias=alias)
        target = to_record(self.context.resolve(tx, Ref.of_revision(name, to)))
        found = aliases.find(tx, adapter, alias)
        return Move(adapter, alias, target, found, self.context.identity.name, request)

    def _move(self, tx: Transaction, move: Move, was: int | None) -> records.AliasInfo:
        _require_seen(move.adapter.name, move.alias, move.current, was)
        return point_alias(self.context, tx, move)

    def remove(self, name: AdapterName, alias: str, was: int) -> None:
        now = self.context.clock()
        with self.context.write() as tx:
            adapter = self.context.writable_adapter(tx, name, "alias.move", alias=alias)
            found = aliases.find(tx, adapter, alias)
            if found is None:
                raise unknown_alias(name, alias)
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


def point_alias(context: RegistryContext, tx: Transaction, move: Move) -> records.AliasInfo:
    """Moves an alias and records an event, if its policies allow this. Every move of an alias is made here.

    Raises `Conflict` for a version that aliases may not name, `InvalidRef` for a new alias with a name that
    git refuses, `CheckFailed` if conditions are not met, and the errors of `gates.decide`.
    """
    adapter, alias, to, found = move.adapter, move.alias, move.to, move.current
    require_alias_allowed(alias, to.state, to.number)
    if found is None:
        parse_alias(alias)
        if like := label_like(tx, adapter.key, alias):
            raise Conflict(
                f"the alias {alias} differs only in case from {adapter.name}@{like}, which exists; write"
                f" {like}, or choose another name"
            )
    if found is None and (ref := git_refs.find(tx, adapter, alias)):
        raise Conflict(
            f"{adapter.name} has a {ref.kind} {alias}; delete it (`hf repos {ref.kind} delete {adapter.name}"
            f" {alias}`), or choose another name for the alias"
        )
    decision = decide(context, tx, move)
    if decision is not None and not decision.is_allowed:
        raise CheckFailed(refusal(decision))
    now, goes_back = context.clock(), is_rollback(tx, move)
    info = aliases.set_target(tx, adapter, alias, to, now, move.by)
    record = None
    if decision is not None:
        promotion, record = promotions.record(tx, adapter, decision, info.generation)
        info = info.model_copy(update={"promotion": promotion})
    events.record(
        tx,
        "alias.moved",
        at=now,
        by=move.by,
        adapter=adapter,
        number=to.number,
        detail={
            "alias": alias,
            "was": found.digest if found else None,
            "was_number": found.number if found else None,
            "to": to.digest,
            "generation": info.generation,
            "verdict": decision.verdict if decision is not None else None,
            "reason": decision.reason if decision is not None else None,
            "record": record,
            "is_rollback": goes_back or None,
        },
    )
    return info


def _require_seen(name: AdapterName, alias: str, found: AliasTarget | None, was: int | None) -> None:
    generation = found.generation if found else None
    if generation == was:
        return
    if found is None:
        raise Conflict(f"{name}@{alias} does not exist, or no longer exists; look again and retry")
    seen = f"generation {was}" if was is not None else "absent"
    raise Conflict(
        f"{name}@{alias} is version {found.number} ({found.digest.brief}, generation {found.generation}), "
        f"not {seen}; look again and retry"
    )
