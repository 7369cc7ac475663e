"""Moves aliases by compare-and-swap: reads the current state, decides, and swaps.

If someone else moves the alias between the read and the move, the move raises `Conflict` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from adaptry.core.digest import Digest
from adaptry.core.display import short_repr
from adaptry.core.errors import Conflict, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import STATE_RULES
from adaptry.core.refs import AdapterName, Ref, parse_stored_alias
from adaptry.registry.adapters import Adapters
from adaptry.registry.aliases import ALIAS_MOVED, AS_POLICIES_SAY, Aliases, MoveRequest, unknown_alias
from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import AliasInfo, Event, VersionInfo
from adaptry.registry.versions import Versions


@dataclass(frozen=True, slots=True)
class AliasMoveResult:
    """The alias after a move, and its previous version (None: it was new)."""

    alias: AliasInfo
    was: int | None

    @property
    def is_change(self) -> bool:
        """Whether the alias points at a different version than before."""
        return self.was != self.alias.number

    def __repr__(self) -> str:
        came = "new" if self.was is None else f"from version {self.was}" if self.is_change else "unchanged"
        return short_repr(self, f"{self.alias.alias} at version {self.alias.number}", came)


def promote(
    registry: Registry,
    ref: Ref,
    alias: str,
    *,
    expect: int | None = None,
    request: MoveRequest = AS_POLICIES_SAY,
) -> AliasMoveResult:
    """Points `alias` at the version that `ref` selects now; does nothing if it already does.

    `expect` is the number of the version that it must point at (0: it must not exist). Raises `Conflict`
    if it points elsewhere or was moved at the same time, and the errors of `Aliases.move`.
    """
    alias = parse_stored_alias(alias)
    to = registry.versions.get(ref)
    found = current_alias(registry.aliases, ref.name, alias)
    if expect is not None and expect != (found.number if found else 0):
        raise Conflict(
            f"{ref.name}@{alias} {_current_state(found)}, not {_expected(expect)}; look again and retry"
        )
    if found and found.digest == to.digest:
        return AliasMoveResult(found, found.number)
    moved = registry.aliases.move(ref.name, alias, to.digest, found.generation if found else None, request)
    return AliasMoveResult(moved, found.number if found else None)


@dataclass(frozen=True, slots=True)
class RollbackTarget:
    """The alias as it was found, and the version before its last move."""

    alias: AliasInfo
    version: VersionInfo


def find_rollback(
    registry: Registry, name: AdapterName, alias: str, maximum: int | None = None
) -> RollbackTarget:
    """Finds the version to which `rollback` would move an alias now. Raises the errors of `rollback`.

    With `maximum`, reads at most that many events of the adapter and of its versions, and raises `NotFound`
    if the last move is not among them.
    """
    found = current_alias(registry.aliases, name, alias)
    if found is None:
        raise unknown_alias(name, alias)
    moves = _moves(registry.adapters, name, alias, maximum)
    last = next(moves, None)
    if last is None and maximum is not None:
        raise NotFound(
            f"the last move of {name}@{alias} is not among the newest {maximum:,} events of {name}; `adaptry"
            f" rollback {name}@{alias}` looks further back"
        )
    if last is None or "was" not in last.detail:
        raise NotFound(
            f"{name}@{alias} has not moved since it was set to version {found.number}, so there is no version"
            f" to roll back to; `adaptry alias set {name}@VERSION {alias}` moves it"
        )
    if last.detail.get("to") != str(found.digest):
        raise Conflict(f"{name}@{alias} was moved at the same time; look again and retry")
    version = registry.versions.get(Ref.of_revision(name, Digest.parse(last.detail["was"])))
    if not STATE_RULES[version.state].allows_aliases:
        raise Conflict(_withdrawn(registry.versions, name, alias, version, moves, maximum))
    return RollbackTarget(found, version)


def rollback(registry: Registry, name: AdapterName, alias: str) -> AliasMoveResult:
    """Points `alias` back at its version before the last move; a second rollback undoes the first.

    Raises `NotFound` if there is no such alias or it never moved, `Conflict` if it moved in the meantime, or
    if that version was withdrawn; the message then names the latest earlier version that an alias may point
    at.
    """
    target = find_rollback(registry, name, alias)
    moved = registry.aliases.move(name, alias, target.version.digest, target.alias.generation)
    return AliasMoveResult(moved, target.alias.number)


def _withdrawn(
    versions: Versions,
    name: AdapterName,
    alias: str,
    version: VersionInfo,
    earlier: Iterator[Event],
    maximum: int | None,
) -> str:
    """Why an alias cannot go back to a version, and the version to move it to instead: the last usable one
    before that at which the alias pointed, else the newest active one with a smaller number.
    """
    sentence = f"{version.label}, where {alias} was before, is {version.state}"
    good = next(_usable_targets(versions, name, earlier), None) or next(
        (
            one
            for one in islice(iter_items(lambda cursor: versions.list(name, cursor, 200)), maximum)
            if one.number < version.number and one.state == "active"
        ),
        None,
    )
    if good is None:
        return f"{sentence}, and no earlier version can be used; `adaptry ls {name}` lists all versions"
    return (
        f"{sentence}; the last good version before it is {good.number}: adaptry promote {good.label}"
        f" --to {alias}"
    )


def _usable_targets(versions: Versions, name: AdapterName, moves: Iterator[Event]) -> Iterator[VersionInfo]:
    """The versions at which an alias has pointed and may still point, latest first."""
    for move in moves:
        if "was" in move.detail:
            version = versions.get(Ref.of_revision(name, Digest.parse(move.detail["was"])))
            if STATE_RULES[version.state].allows_aliases:
                yield version


def current_alias(aliases: Aliases, name: AdapterName, alias: str) -> AliasInfo | None:
    """The current alias, or None. Raises `NotFound` for an unknown adapter."""
    try:
        return aliases.get(name, alias)
    except NotFound:
        aliases.list(name)  # raises `NotFound` if the adapter is unknown
        return None


def _moves(adapters: Adapters, name: AdapterName, alias: str, maximum: int | None = None) -> Iterator[Event]:
    """The moves of an alias among the newest `maximum` events of its adapter, newest first."""
    history = islice(iter_items(lambda cursor: adapters.history(name, cursor, 200)), maximum)
    return (one for one in history if one.kind == ALIAS_MOVED and one.detail.get("alias") == alias)


def _current_state(found: AliasInfo | None) -> str:
    return f"is at version {found.number}" if found else "does not exist"


def _expected(number: int) -> str:
    return f"at version {number}" if number else "absent"
