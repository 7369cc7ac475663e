"""Watches refs: which versions `acme/*@prod` means, now and after each change.

A watch begins with a full scan, then reads events and resolves the refs of the affected adapters again. It
reports current states, not every step: of two quick moves only the second may be seen. A broken connection
loses no change. The full scan is repeated from time to time, because no event is sent when an adapter becomes
unreadable, and immediately if the registry was restored or changed its epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Self, TypeVar

from adaptry.core.errors import InvalidRef, NotFound, PermissionDenied, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, Label, Ref
from adaptry.registry.events import adapters_of
from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import Event, EventBatch, VersionInfo
from adaptry.registry.versions import Versions

Answer = TypeVar("Answer")

_MAGIC = frozenset("*?[")
_IGNORED_KINDS = frozenset({"metrics.logged", "evidence.added", "evidence.withdrawn"})
"""Frequent kinds of events that never change which version a ref selects."""
_FULL_LOOK = 60.0  # seconds
_PAUSES = 0.5, 30.0  # seconds before retrying a registry that does not answer: initially and at most
_BATCH = 200


@dataclass(frozen=True, slots=True)
class RefPattern:
    """A ref, or a glob (`*`, `?`, `[…]`) that matches aliases: `acme/*@prod`, `acme/tone@*`."""

    adapters: str
    selector: str
    ref: Ref | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses a ref or a glob. Raises `InvalidRef`."""
        if _MAGIC.isdisjoint(text):
            ref = Ref.parse(text)
            return cls(str(ref.name), "", ref)
        adapters, at, selector = text.partition("@")
        if not at or not selector or adapters.count("/") != 1:
            raise InvalidRef(
                f"not refs: {text[:200]!r} (several are written as adapters and aliases, as in acme/*@prod)"
            )
        return cls(adapters, selector, None)

    def matches_adapter(self, name: AdapterName) -> bool:
        return fnmatchcase(str(name), self.adapters)

    def matches_ref(self, text: str) -> bool:
        """Whether a ref matches the pattern."""
        if self.ref is not None:
            return text == str(self.ref)
        adapters, _, selector = text.partition("@")
        return fnmatchcase(adapters, self.adapters) and fnmatchcase(selector, self.selector)

    def resolve(self, versions: Versions, name: AdapterName | None) -> Iterator[tuple[str, VersionInfo]]:
        """Each matching ref with its version, of one adapter or of all."""
        if self.ref is not None:
            try:
                yield str(self.ref), versions.get(self.ref)
            except (NotFound, PermissionDenied):
                return
        else:
            for version in iter_items(partial(versions.search, self._query(name), limit=_BATCH)):
                if self.matches_adapter(version.name):
                    for alias in version.aliases:
                        if fnmatchcase(alias, self.selector):
                            yield str(Ref(version.name, Label(alias))), version

    def _query(self, name: AdapterName | None) -> str:
        """The narrowest query that the search language can express; the globs filter its results."""
        terms = ["state:*", _term("alias", self.selector)]
        if name is not None:
            terms.append(f"name:{name}")
        else:
            namespace, _, bare = self.adapters.partition("/")
            terms += [_term("namespace", namespace), _term("name", f"{namespace}/{bare}")]
        return " ".join(filter(None, terms))


@dataclass(frozen=True, slots=True)
class RefChange:
    """The version that a ref selects now, and the version at the previous scan; None if it selected none."""

    ref: str
    now: VersionInfo | None
    was: VersionInfo | None


class RefWatcher:
    """`next_changes` returns what changed since the previous call; the first call returns all refs."""

    def __init__(self, registry: Registry, patterns: Sequence[str]) -> None:
        """Parses the refs. Raises `InvalidRef`."""
        self._registry = registry
        self._patterns = tuple(map(RefPattern.parse, patterns))
        self._adapters = tuple(dict.fromkeys(pattern.adapters for pattern in self._patterns))
        self._seen: dict[str, VersionInfo] = {}
        self._seq: int | None = None
        self._epoch: str | None = None
        self._looked_at = 0.0

    @property
    def versions(self) -> dict[str, VersionInfo]:
        """The version of each ref at the last scan."""
        return dict(self._seen)

    @property
    def seq(self) -> int | None:
        """The number of the last event read; None before the first scan."""
        return self._seq

    @property
    def epoch(self) -> str | None:
        """The registry's epoch at the last scan; None from an older server."""
        return self._epoch

    def reset(self) -> None:
        """Makes the next `next_changes` scan everything again."""
        self._seq = None

    def next_changes(self, wait: float = 30.0) -> tuple[RefChange, ...]:
        """Waits up to `wait` seconds for these adapters' first event. Can be repeated after `Unavailable`."""
        if self._seq is None or time.monotonic() - self._looked_at > _FULL_LOOK:
            return self._rescan()
        news = self._registry.events.read(self._seq, _BATCH, wait, self._adapters)
        if news.seq < self._seq or news.epoch != self._epoch:
            return self._rescan()
        changed = self._rescan_adapters(affected_adapters(news))
        self._seq = news.seq
        return changed

    def _rescan(self) -> tuple[RefChange, ...]:
        end = self._registry.events.read()  # events during the scan are read again
        found = {
            ref: version
            for each in self._patterns
            for ref, version in each.resolve(self._registry.versions, None)
        }
        changed = self._diff(self._seen, found)
        self._seen, self._seq, self._epoch, self._looked_at = found, end.seq, end.epoch, time.monotonic()
        return changed

    def _rescan_adapters(self, names: Sequence[AdapterName]) -> tuple[RefChange, ...]:
        if not names:
            return ()
        before = {ref: version for ref, version in self._seen.items() if version.name in names}
        found: dict[str, VersionInfo] = {}
        for name in names:
            for pattern in self._patterns:
                if pattern.matches_adapter(name):
                    found |= dict(pattern.resolve(self._registry.versions, name))
        changed = self._diff(before, found)
        self._seen = {ref: version for ref, version in self._seen.items() if ref not in before} | found
        return changed

    def _diff(self, before: dict[str, VersionInfo], found: dict[str, VersionInfo]) -> tuple[RefChange, ...]:
        changes = (
            RefChange(ref, found.get(ref), before.get(ref)) for ref in sorted(before.keys() | found.keys())
        )
        return tuple(change for change in changes if _comparable(change.now) != _comparable(change.was))


def watch_refs(
    registry: Registry, patterns: Sequence[str], pause: Callable[[float], object] = time.sleep
) -> Iterator[RefChange]:
    """Yields the current refs, then every change, forever. Waits while the registry is down."""
    watched = RefWatcher(registry, patterns)
    for changes in _retry_forever(watched.next_changes, pause):
        yield from changes


def follow_events(
    registry: Registry,
    after: int | None = None,
    adapters: Sequence[str] = (),
    pause: Callable[[float], object] = time.sleep,
) -> Iterator[Event]:
    """Yields every event after number `after` (None: from now), forever. Waits if the registry is down."""
    reached = after

    def look() -> EventBatch:
        nonlocal reached
        news = registry.events.read(reached, _BATCH, 0.0 if reached is None else 30.0, adapters)
        reached = news.seq
        return news

    for news in _retry_forever(look, pause):
        yield from news.items


def affected_adapters(news: EventBatch) -> tuple[AdapterName, ...]:
    """The adapters whose refs may have changed."""
    names = (name for event in news.items if event.kind not in _IGNORED_KINDS for name in adapters_of(event))
    return tuple(dict.fromkeys(names))


def _retry_forever(look: Callable[[], Answer], pause: Callable[[float], object]) -> Iterator[Answer]:
    timeout = _PAUSES[0]
    while True:
        try:
            answer = look()
        except Unavailable:
            pause(timeout)
            timeout = min(2 * timeout, _PAUSES[1])
            continue
        timeout = _PAUSES[0]
        yield answer


def _comparable(version: VersionInfo | None) -> object:
    """The fields whose change is reported: the digest, the state, and whether the base is known."""
    if version is None:
        return None
    return (
        version.digest,
        version.number,
        version.state,
        version.last_state_change,
        version.base_id,
        version.base_status,
    )


def _term(field: str, glob: str) -> str:
    """The search term for a glob: exact, or its literal prefix."""
    plain = glob[: next((at for at, char in enumerate(glob) if char in _MAGIC), len(glob))]
    if plain == glob:
        return f"{field}:{glob}"
    return f"{field}:{plain}*" if plain else ""
