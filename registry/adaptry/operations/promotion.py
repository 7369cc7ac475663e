"""Moving aliases: look, decide, compare and swap.

Verbs over the waist. Between the look and the move someone else may move the alias; then the move is a
`Conflict` and nothing happened.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, NotFound
from adaptry.core.refs import AdapterName, Ref, parse_stored_alias
from adaptry.registry.adapters import Adapters
from adaptry.registry.aliases import Aliases
from adaptry.registry.interface import Registry
from adaptry.registry.paging import iter_items
from adaptry.registry.records import AliasInfo, Event

ALIAS_MOVED = "alias.moved"
"""The kind of event that says where an alias went (`to`) and where it was (`was`)."""


@dataclass(frozen=True, slots=True)
class AliasMoveResult:
    """What a move did: where the alias is, and the version it was at before (None: it was new)."""

    alias: AliasInfo
    was: int | None

    @property
    def is_change(self) -> bool:
        return self.was != self.alias.number


def promote(registry: Registry, ref: Ref, alias: str, *, only_from: int | None = None) -> AliasMoveResult:
    """Points `alias` at the version that `ref` means now; where it is there already, nothing happens.

    `only_from` is the number of the version it must be at (0: it must not exist). Raises `Conflict` where it
    is elsewhere or moved meanwhile, `NotFound`, `InvalidRef`, `PermissionDenied`.
    """
    alias = parse_stored_alias(alias)
    to = registry.versions.get(ref)
    found = current_alias(registry.aliases, ref.name, alias)
    if only_from is not None and only_from != (found.number if found else 0):
        raise Conflict(
            f"{ref.name}@{alias} {_place(found)}, not {_expected(only_from)}; look again and retry"
        )
    if found and found.digest == to.digest:
        return AliasMoveResult(found, found.number)
    moved = registry.aliases.move(ref.name, alias, to.digest, found.generation if found else None)
    return AliasMoveResult(moved, found.number if found else None)


def rollback(registry: Registry, name: AdapterName, alias: str) -> AliasMoveResult:
    """Points `alias` back at the version it was at before its last move; again undoes that.

    Raises `NotFound` where there is no such alias or it never moved, `Conflict` where it moved meanwhile or
    the version may no longer be pointed at.
    """
    found = current_alias(registry.aliases, name, alias)
    if found is None:
        raise NotFound(f"{name} has no alias {alias}")
    last = _last_move(registry.adapters, name, alias)
    if last is None or "was" not in last.detail:
        raise NotFound(f"{name}@{alias} was never anywhere but at version {found.number}")
    if last.detail.get("to") != str(found.digest):
        raise Conflict(f"{name}@{alias} moved meanwhile; look again and retry")
    moved = registry.aliases.move(name, alias, Digest.parse(last.detail["was"]), found.generation)
    return AliasMoveResult(moved, found.number)


def current_alias(aliases: Aliases, name: AdapterName, alias: str) -> AliasInfo | None:
    """Where an alias is now. Raises `NotFound` for an adapter that is not there."""
    return next((found for found in aliases.list(name) if found.alias == alias), None)


def _last_move(adapters: Adapters, name: AdapterName, alias: str) -> Event | None:
    history = iter_items(lambda cursor: adapters.history(name, cursor, 200))
    return next(
        (one for one in history if one.kind == ALIAS_MOVED and one.detail.get("alias") == alias), None
    )


def _place(found: AliasInfo | None) -> str:
    return f"is at version {found.number}" if found else "does not exist"


def _expected(number: int) -> str:
    return f"at version {number}" if number else "absent"
