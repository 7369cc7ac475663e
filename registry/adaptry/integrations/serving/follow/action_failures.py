"""Failures of a plan's actions: which of them make a version wait for its next attempt.

A version waits (`backoff`) if the engine refuses it or does not answer when loading it. The same applies if
the engine ended, or stopped answering at all, during its load or test: otherwise, once the engine is back,
this version would be loaded first again, and could end the engine in each pass before the others are loaded.
Other failures are transient: the next pass tries again.
"""

from __future__ import annotations

from collections.abc import Callable

from adaptry.core.errors import AdaptryError, Conflict, StorageFull
from adaptry.integrations.serving.engines import Engine, EngineDisconnect, EngineTimeout
from adaptry.integrations.serving.follow.problem_log import ProblemLog
from adaptry.integrations.serving.follow.registry_status import UNREACHABLE
from adaptry.integrations.serving.worker.backoff import Backoff, ServedVersion
from adaptry.registry.interface import Registry


class ActionFailures:
    """`transient`: the errors of the last pass that make no version wait, by name. `log` gets each problem
    once."""

    def __init__(
        self, registry: Registry, engine: Engine, backoff: Backoff, log: Callable[[str], None]
    ) -> None:
        self._registry, self._engine, self._backoff = registry, engine, backoff
        self._log = ProblemLog(log)
        self._subjects: set[str] = set()
        self.transient: dict[str, str] = {}

    def begin(self) -> None:
        """Call this before the first action of a plan."""
        self.transient = {}
        self._subjects = set()

    def end(self) -> bool:
        """Call this after the last action; returns whether any action has failed."""
        self._log.retain(self._subjects)
        return bool(self._subjects)

    def record(self, key: ServedVersion | None, error: AdaptryError, *, is_registry_down: bool) -> None:
        """Records a failure of the version (`key`; None for an unload). Raises an error if a server is
        down.
        """
        is_transient = isinstance(error, (Conflict, *UNREACHABLE)) and not isinstance(error, StorageFull)
        if isinstance(error, UNREACHABLE) and is_transient:
            self._require_answers(key, error, is_registry_down=is_registry_down)
        if key and isinstance(error, EngineTimeout):
            timeout = self._engine.client.timeout
            self._backoff.record_unanswered(key, error.message, error.seconds, timeout)
        elif key and is_transient:
            self.transient[key[0]] = error.message
        elif key:
            self._backoff.record_failure(key, error.message)
        self._note(key, error.message)

    def _require_answers(
        self, key: ServedVersion | None, error: AdaptryError, *, is_registry_down: bool
    ) -> None:
        """Raises an error if the engine or the registry does not answer."""
        try:
            self._engine.list_adapters()
        except UNREACHABLE:
            if key and isinstance(error, (EngineDisconnect, EngineTimeout)):
                what = "ended" if isinstance(error, EngineDisconnect) else "stopped answering"
                reason = f"the engine {what} while it loaded or tested this version: {error.message}"
                self._backoff.record_crash(key, reason)
                self._note(key, reason)
            raise
        if not is_registry_down:
            self._registry.events.read()

    def _note(self, key: ServedVersion | None, reason: str) -> None:
        problem = self._backoff.problem(key) if key else None
        line = f"{key[0]}: {problem or reason}" if key else reason
        subject = key[0] if key else reason
        self._log.note(subject, line)
        self._subjects.add(subject)
