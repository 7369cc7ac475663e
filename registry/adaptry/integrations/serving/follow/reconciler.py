"""`adaptry follow`: keeps what an engine has loaded equal to what the registry's aliases say.

A turn looks at both, decides (`planning`), says to the registry what it is about to load, and does it (`acting`). Little is
kept that a look would not show again: a worker that dies goes on where it was, an engine that comes back empty is filled
again, and where the registry is away the engine keeps what it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event

from adaptry.core.errors import AdaptryError, Conflict, Refused, StorageFull, Unauthenticated, Unavailable
from adaptry.integrations.engine_probe import Running
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.compatibility import Serving
from adaptry.integrations.serving.engines import Engine, Loaded
from adaptry.integrations.serving.follow.backoff import Failures, Place
from adaptry.integrations.serving.follow.desired import Wanting
from adaptry.integrations.serving.follow.executor import Acting, label_of
from adaptry.integrations.serving.follow.plan import Had, Load, Plan, Swap, Unload, Wanted, plan
from adaptry.integrations.serving.follow.recall_executor import Recalling
from adaptry.integrations.serving.follow.reporter import NOTHING, Now, Saying
from adaptry.integrations.serving.follow.state_file import Memory
from adaptry.integrations.serving.follow.status_report import Settings
from adaptry.operations.watch import Pattern, Watch
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import Dropped, Told

_RECKONINGS = 4  # plans made within a turn, because the registry said something new about the one before
_EVERY = 5.0  # seconds
_PAUSE = 1.0
_PATIENCE = 60.0
_AWAY = (Unavailable, Unauthenticated)
"""What a registry raises where it cannot be asked: a token that ended is no reason to unload."""


@dataclass(frozen=True, slots=True)
class Around:
    """What a follower works with. `look` asks the engine what it is, each time it comes back, and `judge` the registry what
    that means for versions; `tell` is told the story, a line at a time."""

    registry: Registry
    engine: Engine
    cache: Cache
    memory: Memory
    look: Callable[[], Running]
    judge: Callable[[Running], Serving]
    tell: Callable[[str], None]


class Follower:
    """One engine, one registry. `turn` is called again and again, by one thread."""

    def __init__(self, around: Around, settings: Settings) -> None:
        """Raises `InvalidRef` for what cannot be watched."""
        self._around = around
        self._settings = settings
        watched = (*settings.watch, *settings.preload)
        self._patterns = tuple(map(Pattern.parse, watched))
        self._watch = Watch(around.registry, watched)
        self._recalling = Recalling(around.engine, around.cache, around.memory, around.tell)
        self._failures = Failures()
        self._wanting = Wanting(
            around.registry, around.memory, self._failures, self._recalling, frozenset(settings.preload)
        )
        self._saying = Saying(around.registry, around.engine, around.memory, settings, self._wanting)
        self._running: Running | None = None
        self._serving: Serving | None = None
        self._hindered: dict[str, str] = {}
        self.away: AdaptryError | None = None
        """Why engine or registry could not be asked last; None where both could."""
        self.is_alone = False
        """Whether the registry did not answer last."""

    @property
    def _told(self) -> Told:
        return self._saying.told

    def turn(self, wait: float) -> bool:
        """A look at both, waiting so long for news, and what follows from it. Whether all is as it should be."""
        around = self._around
        self.away = None
        self._hear(wait)
        try:
            loaded = around.engine.loaded()
            self._look()
            made = self._reckoned(loaded)
            is_done = self._act(made)
            after = around.engine.loaded()
            self._count_errors(after)
            self._settle(after, made)
        except _AWAY as error:
            around.tell(error.message)
            self.away = error
            self._running = self._serving = None
            self._report(None)
            return False
        is_recalling = bool(self._told.withdrawn)
        is_news = is_recalling or bool(self._to_do(after).steps)
        return is_done and not is_news and not self.is_alone

    def require_served(self) -> None:
        """Raises `Refused` where something that should be served could not be; what found no slot was not meant to be."""
        failed = [
            f"{name}: {reason}"
            for name, version in self._wanting.asked(self._told.turns)
            if (reason := self._failures.reason((name, version.digest)))
        ]
        if failed:
            raise Refused(f"not served as it should be: {'; '.join(failed)}")

    def _hear(self, wait: float) -> None:
        """What the refs mean now; where the registry is away, what they meant last."""
        try:
            self._watch.changes(0.0 if self.is_alone else wait)
            self._notice_epoch()
        except _AWAY as error:
            self._alone(error)
            return
        if self.is_alone:
            self._around.tell("the registry answers again")
        self.is_alone = False
        self._around.memory.now.meant = self._watch.seen
        self._around.memory.note()

    def _notice_epoch(self) -> None:
        """A registry that was restored is shown what it withdrew before, and looked at again, before it is believed."""
        epoch, memory = self._watch.epoch, self._around.memory.now
        if epoch is None or epoch == memory.epoch:
            return
        if memory.epoch is not None:
            self._around.tell("the registry was restored from a backup; reading everything again")
        self._saying.greet(epoch)
        self._watch.look_again()
        self._watch.changes(0.0)

    def _alone(self, error: AdaptryError) -> None:
        if not self.is_alone:
            self._around.tell(f"{error.message}; what is loaded stays")
        self.is_alone, self.away = True, error

    def _look(self) -> None:
        """What the engine is, anew after it was away."""
        running = self._running = self._running or self._around.look()
        if self._serving is None and not self.is_alone:
            self._serving = self._around.judge(running)
            self._around.memory.now.served = running.models

    def _reckoned(self, loaded: Sequence[Loaded]) -> Plan:
        """The plan, once the registry knows what is about to be loaded and has nothing to say against it."""
        for _ in range(_RECKONINGS):
            made = self._to_do(loaded)
            coming = _coming(made)
            if self.is_alone:
                break
            if coming.keys() <= set(self._around.memory.now.confirmed):
                return made
            before = self._told
            self._report(loaded, coming=coming, left_out=made.left_out)
            if not self.is_alone and (before.turns, before.withdrawn) == (
                self._told.turns,
                self._told.withdrawn,
            ):
                return made
        memory = self._around.memory.now
        is_same = self._running is not None and self._running.models == memory.served
        return _only(self._to_do(loaded), set(memory.confirmed) if is_same else set())

    def _to_do(self, loaded: Sequence[Loaded]) -> Plan:
        self._recalling.note(self._around.memory.now.meant, self._told.withdrawn, loaded)
        had = [Had(one.name, one.digest, self._is_ours(one.name)) for one in loaded]
        wanted = self._wanting.wanted(self._told.turns)
        return plan(wanted, had, self._settings.slots, self._recalling.withdrawn)

    def _is_ours(self, name: str) -> bool:
        """Whether this worker loaded it, or would: what fits what it watches is its own."""
        return name in self._around.memory.now.ours or any(pattern.fits(name) for pattern in self._patterns)

    def _act(self, made: Plan) -> bool:
        """Whether every step succeeded. Raises where engine or registry does not answer."""
        around = self._around
        acting = Acting(
            around.registry,
            around.engine,
            around.cache,
            around.memory,
            None if self.is_alone else self._serving,
            around.tell,
        )
        slots, is_done = self._settings.slots, True
        self._hindered = {}
        for step in made.steps:
            place = None if isinstance(step, Unload) else (step.wanted.served_as, step.wanted.digest)
            has_room = slots is None or len(around.engine.loaded()) < slots
            try:
                acting.take(step, has_room)
            except AdaptryError as error:
                self._missed(place, error)
                is_done = False
            else:
                if place:
                    self._failures.forget(place)
        return is_done

    def _missed(self, place: Place | None, error: AdaptryError) -> None:
        """Notes why a step failed: of the version, or only of this time. Raises where engine or registry is away."""
        is_passing = isinstance(error, (Conflict, *_AWAY)) and not isinstance(error, StorageFull)
        if isinstance(error, _AWAY) and is_passing:
            self._around.engine.loaded()
            if not self.is_alone:
                self._around.registry.events()
        self._around.tell(error.message)
        if place and is_passing:
            self._hindered[place[0]] = error.message
        elif place:
            self._failures.note(place, error.message)

    def _count_errors(self, loaded: Sequence[Loaded]) -> None:
        """A version that is being rolled out and makes the engine fail has failed."""
        turns = {f"{one.name}@{one.alias}": one.digest for one in self._told.turns}
        for one in loaded:
            if one.digest and turns.get(one.name) == one.digest:
                place = (one.name, one.digest)
                if reason := self._failures.count(place, self._around.engine.tally()):
                    self._failures.note(place, reason)

    def _settle(self, loaded: Sequence[Loaded], made: Plan) -> None:
        """Lets go of files that nothing uses, and says how things are."""
        digests = {one.digest for one in loaded}
        for entry in self._around.cache.entries():
            if entry.digest not in digests:
                self._around.cache.release(entry.digest)
        self._report(loaded, left_out=made.left_out)
        self._recalling.note(self._around.memory.now.meant, self._told.withdrawn, loaded)
        self._recalling.clear(loaded)
        if not self._told.withdrawn:
            return
        if dropped := self._recalling.dropped(self._told.withdrawn, loaded):
            self._report(loaded, dropped=dropped, left_out=made.left_out)
            self._around.tell(
                f"dropped {', '.join(f'{one.name} {one.digest.brief}' for one in dropped)}: it is refused here now"
            )

    def _report(
        self,
        loaded: Sequence[Loaded] | None,
        *,
        coming: Mapping[Place, VersionInfo] = NOTHING,
        dropped: Sequence[Dropped] = (),
        left_out: Sequence[Wanted] = (),
    ) -> None:
        """Says how things are; where the registry is away, nobody hears it."""
        now = Now(self._running, self._watch.seq, loaded, coming, dropped, self._troubles(left_out))
        try:
            self._saying.say(now)
        except _AWAY as error:
            self._alone(error)

    def _troubles(self, left_out: Sequence[Wanted]) -> dict[str, str]:
        """Each name that is not served as it should be, and why."""
        troubles = {
            one.served_as: f"no slot is free for {label_of(one.version)} ({self._settings.slots} are in use)"
            for one in left_out
        }
        troubles |= self._hindered
        for name, version in self._wanting.asked(self._told.turns):
            if reason := self._failures.reason((name, version.digest)):
                troubles[name] = reason
            elif not self._wanting.is_usable(version):
                troubles[name] = f"{label_of(version)} is withdrawn; move the alias to another version"
        return troubles


def _coming(made: Plan) -> dict[Place, VersionInfo]:
    """What a plan loads, under every name that it loads it under."""
    found: dict[Place, VersionInfo] = {}
    for step in made.steps:
        if isinstance(step, Load | Swap):
            version = step.wanted.version
            found[step.wanted.served_as, version.digest] = version
    return found


def _only(made: Plan, confirmed: set[Place]) -> Plan:
    """The steps that need no word from the registry: unloading, and loading what it knows to be here."""
    steps = [
        step
        for step in made.steps
        if isinstance(step, Unload) or (step.wanted.served_as, step.wanted.digest) in confirmed
    ]
    return Plan(tuple(steps), made.left_out)


def keep_up(follower: Follower, stop: Event, every: float = _EVERY) -> None:
    """Turn after turn until `stop`. Waits for news at most `every` seconds, so that an engine that was started anew is not
    empty for longer."""
    wait = 0.0
    while not stop.is_set():
        is_settled = follower.turn(wait)
        wait = every if is_settled else 0.0
        if not is_settled:
            stop.wait(_PAUSE)


def settle(follower: Follower, stop: Event, patience: float = _PATIENCE) -> None:
    """Turn after turn until all is as it should be, or `stop`. Raises why engine or registry cannot be asked, and `Refused` where
    something that should be served is not, or is not settled after `patience` seconds."""
    until = time.monotonic() + patience
    while not stop.is_set():
        is_settled = follower.turn(0.0)
        if follower.away:
            raise follower.away
        if is_settled:
            follower.require_served()
            return
        if time.monotonic() > until:
            raise Refused(
                f"not all is as it should be after {patience:.0f} s; what is left to do was said above"
            )
        stop.wait(_PAUSE)
