"""The last known targets of refs, on disk: used for a limited time while the registry is unreachable.

The cache's folder has one file for each registry and token, shared by their workers: a worker that starts
while the registry is unreachable serves the versions that another worker stored. The file also has the
highest generation seen of each alias, so that a registry that is behind (a replica that lags, a copy restored
from an old backup) is noticed. The age of a target is the time since the registry last confirmed it.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ValidationError

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, Unavailable
from adaptry.core.files.atomic_file import atomic_file
from adaptry.core.files.durable import write_error
from adaptry.core.files.locks import FileLock
from adaptry.core.refs import ByDigest, Number, Ref
from adaptry.registry.records import VersionInfo

_MAX_REFS = 4096
_SAVE_EVERY = timedelta(minutes=1)
"""How old a confirmation on the disk may become. Served names are confirmed every few seconds, which is too
often for the disk."""
_CLOCK_ERROR = timedelta(minutes=5)
"""A confirmation further in the future than this was made with a wrong clock; it does not count."""
_DISTANT_PAST = datetime.min.replace(tzinfo=UTC)


class KnownTarget(BaseModel):
    """The version that a ref selected, and when the registry last confirmed it. `bases`: served bases that
    the version fits."""

    version: VersionInfo
    confirmed_at: datetime
    bases: tuple[Digest, ...] = ()


class KnownTargets(BaseModel):
    """The stored state. `generations`: the highest generation seen of each alias (`acme/tone@prod`)."""

    meanings: dict[str, KnownTarget] = {}
    generations: dict[str, int] = {}


def _now() -> datetime:
    return datetime.now(UTC)


class LastKnownTargets:
    """The last known targets of one registry's refs. Safe for many threads and processes."""

    def __init__(
        self,
        folder: Path,
        known_as: str,
        max_age: timedelta = timedelta(hours=24),
        now: Callable[[], datetime] = _now,
    ) -> None:
        """Reads the file of the registry and token that `known_as` identifies. An unreadable file counts as
        empty."""
        self.path = folder / f"known-{hashlib.sha256(known_as.encode()).hexdigest()[:16]}.json"
        self.max_age = max_age
        self._now = now
        self._guard = threading.Lock()  # locked only briefly, because the event loop waits for it
        self._saving = threading.Lock()
        self._state = KnownTargets()
        self._is_changed = False
        self._saved_at = now()
        self._merge(self._read())

    def find(self, ref: Ref) -> KnownTarget | None:
        """The version that the ref last selected. A digest or number is found through any ref that selected
        that version."""
        with self._guard:
            if found := self._state.meanings.get(str(ref)):
                return found
            if not isinstance(ref.selector, Number | ByDigest):
                return None
            return next(
                (each for each in self._state.meanings.values() if _is_version(ref, each.version)), None
            )

    def reload(self) -> None:
        """Reads the entries that other workers on the machine have added."""
        found = self._read()
        with self._guard:
            self._merge(found)

    def confirm(self, ref: Ref, version: VersionInfo, base: Digest | None = None) -> None:
        """Records that the registry has just confirmed the target of the ref. The version fits `base`."""
        with self._guard:
            before = self._state.meanings.get(str(ref))
            is_same = before is not None and before.version.digest == version.digest
            bases = before.bases if before and is_same else ()
            if base is not None and base not in bases:
                bases = (*bases, base)
            self._state.meanings[str(ref)] = KnownTarget(
                version=version, confirmed_at=self._now(), bases=bases
            )
            is_new = before is None or before.version != version or before.bases != bases
            if is_new or (before and self._confirmed_at(before) == _DISTANT_PAST):
                self._is_changed = True
            self._shrink()

    def forget(self, ref: Ref) -> None:
        """Records that the ref no longer selects a version."""
        with self._guard:
            if self._state.meanings.pop(str(ref), None):
                self._is_changed = True

    def require_current(self, ref: Ref, generation: int) -> None:
        """Records an alias's generation. Raises `Conflict` if a higher one was seen: the registry is
        behind."""
        with self._guard:
            seen = self._state.generations.get(str(ref), generation)
            if generation < seen:
                raise Conflict(
                    f"the registry is behind: it has {ref} at generation {generation}, but this worker has"
                    f" already seen {seen}. Is it a lagging replica, or was it restored from an old backup?"
                    f" If the registry was set up again, remove {self.path}"
                )
            if self._state.generations.get(str(ref)) != generation:
                self._state.generations[str(ref)] = generation
                self._is_changed = True

    def age(self, known: KnownTarget) -> timedelta:
        """The time since the registry confirmed the target; more than `max_age` if the clock was wrong
        then.
        """
        age = self._now() - known.confirmed_at
        return max(age, timedelta()) if age > -_CLOCK_ERROR else self.max_age + _CLOCK_ERROR

    def is_fresh(self, known: KnownTarget) -> bool:
        return self.age(known) <= self.max_age

    def save(self) -> None:
        """Writes the changes, merged with those of other workers, atomically and flushed to disk.
        Confirmations alone are written once a minute. Raises `StorageFull`, `Unavailable`."""
        with self._saving:
            with self._guard:
                is_due = abs(self._now() - self._saved_at) > _SAVE_EVERY  # the clock may be set back
                if not (self._is_changed or (is_due and self._state.meanings)):
                    return
                self._is_changed = False
            try:
                self._save()
            except Unavailable:
                self._is_changed = True
                raise
            self._saved_at = self._now()

    def _save(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(error, self.path) from error
        with FileLock.acquire_exclusive(self.path.with_name(f".{self.path.name}.lock")):
            stored = self._read()
            with self._guard:
                self._merge(stored)
                text = self._state.model_dump_json()
            with atomic_file(self.path) as file:
                file.write(text.encode())

    def _merge(self, other: KnownTargets) -> None:
        """Merges two states: the newer confirmation and the higher generation of each ref win."""
        mine = self._state
        for ref, meaning in other.meanings.items():
            known = mine.meanings.get(ref)
            if known is None or self._confirmed_at(known) < self._confirmed_at(meaning):
                mine.meanings[ref] = meaning
        for ref, generation in other.generations.items():
            mine.generations[ref] = max(generation, mine.generations.get(ref, 0))
        self._shrink()

    def _confirmed_at(self, known: KnownTarget) -> datetime:
        """The time at which the registry confirmed the target. A time in the future comes from a wrong clock,
        and counts as older than any other time, so that the next confirmation replaces it."""
        is_possible = known.confirmed_at <= self._now() + _CLOCK_ERROR
        return known.confirmed_at if is_possible else _DISTANT_PAST

    def _shrink(self) -> None:
        known = self._state.meanings
        if len(known) > _MAX_REFS:
            oldest_first = sorted(known, key=lambda ref: self._confirmed_at(known[ref]))
            for ref in oldest_first[: len(known) - _MAX_REFS]:
                del known[ref]

    def _read(self) -> KnownTargets:
        with contextlib.suppress(OSError, ValidationError, UnicodeDecodeError):
            return KnownTargets.model_validate_json(self.path.read_text(encoding="utf-8"))
        return KnownTargets()


def _is_version(ref: Ref, version: VersionInfo) -> bool:
    if version.name != ref.name:
        return False
    match ref.selector:
        case Number(number):
            return version.number == number
        case ByDigest(prefix):
            return version.digest.hex.startswith(prefix)
    return False
