"""The journal on disk of versions that an engine loads, or answers with for the first time.

A worker in the engine's process ends with it, so it cannot see which version ended the engine. It records
each version before the load, until its first request has ended. The versions that a new process finds there
were being loaded or tested when the engine ended, for whatever reason. The first time, such a version is only
preloaded after the others. When this happens again, the version waits as long as after a crash that `adaptry
follow` detects (`backoff.crash_pause`), and is then not tried together with another such version, so that it
becomes clear which one ends the engine.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ValidationError

from adaptry.core.errors import Unavailable
from adaptry.core.files.atomic_file import atomic_file
from adaptry.integrations.serving.worker.backoff import crash_pause

log = logging.getLogger("adaptry")

_MAX_VERSIONS = 256  # versions; the ones that waited longest are forgotten first


class CrashPause(Unavailable):
    """The version waits, because the engine has ended repeatedly while it was loaded or first used."""


class LoadAttempt(BaseModel):
    """`name` is the name that clients request, `label` names the version for people."""

    name: str
    label: str


class InterruptedLoads(BaseModel):
    """The number of attempts to load a version, or to answer its first request, during which the engine
    ended; and the time at which the next attempt may begin."""

    name: str
    attempts: int
    retry_at: datetime


class JournalState(BaseModel):
    """The stored state, by the key of a version (or stack)."""

    running: dict[str, LoadAttempt] = {}
    interrupted: dict[str, InterruptedLoads] = {}


class LoadJournal:
    """The journal at `path`, which only one worker may write. Safe for threads. If it cannot be written,
    adapters are loaded without it."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Counts the attempts that the previous process did not end. An unreadable file counts as empty."""
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._state = JournalState()
        with contextlib.suppress(OSError, ValidationError, UnicodeDecodeError):
            self._state = JournalState.model_validate_json(path.read_text(encoding="utf-8"))
        self._count_interrupted()
        now = datetime.now(UTC)
        self._retry_at = {
            key: clock() + min((one.retry_at - now).total_seconds(), _pause(one.attempts))
            for key, one in self._state.interrupted.items()
        }

    def _count_interrupted(self) -> None:
        state = self._state
        for key, attempt in state.running.items():
            before = state.interrupted.pop(key, None)
            attempts = 1 + (before.attempts if before else 0)
            retry_at = datetime.now(UTC) + timedelta(seconds=_pause(attempts))
            state.interrupted[key] = InterruptedLoads(name=attempt.name, attempts=attempts, retry_at=retry_at)
            log.warning(
                "the engine ended while it loaded %s or answered the first request for it: interruption %d",
                attempt.label,
                attempts,
            )
        for key in list(state.interrupted)[:-_MAX_VERSIONS]:
            del state.interrupted[key]
        if state.running:
            state.running = {}
            self._save()

    def begin(self, key: str, attempt: LoadAttempt) -> None:
        """Records that the engine will load the version. Raises `CrashPause` while it waits; `Unavailable`
        while another version that may have ended the engine is tried."""
        with self._lock:
            if key in self._state.interrupted:
                self._require_turn(key, attempt)
            self._record(key, attempt)

    def note_first_request(self, key: str, attempt: LoadAttempt) -> None:
        """Records that the engine, which has loaded the version, now gets the first request for it."""
        with self._lock:
            self._record(key, attempt)

    def end(self, key: str) -> None:
        """Records that the engine outlived the attempt."""
        with self._lock:
            if self._state.running.pop(key, None):
                self._save()

    def succeed(self, key: str) -> None:
        """Records that the version works, and forgets earlier attempts."""
        with self._lock:
            found = (self._state.running.pop(key, None), self._state.interrupted.pop(key, None))
            if any(found):
                self._save()

    def is_suspect(self, name: str) -> bool:
        """Whether an attempt to load a version under the name was interrupted, and no attempt has
        succeeded.
        """
        with self._lock:
            return any(one.name == name for one in self._state.interrupted.values())

    def _require_turn(self, key: str, attempt: LoadAttempt) -> None:
        one = self._state.interrupted[key]
        if self._clock() < self._retry_at[key]:
            raise CrashPause(
                f"the engine ended {one.attempts} times while it loaded {attempt.label} or answered the first"
                f" request for it; next attempt: {one.retry_at:%Y-%m-%d %H:%M:%S} UTC. To try it sooner, stop"
                f" the engine and remove {self.path}"
            )
        if one.attempts > 1 and self._repeated() & self._state.running.keys() - {key}:
            raise Unavailable(
                f"the engine may have ended because of {attempt.label} or of another version, which is being"
                " tried first; request it again later"
            )

    def _repeated(self) -> set[str]:
        """The versions with more than one interrupted attempt."""
        return {key for key, one in self._state.interrupted.items() if one.attempts > 1}

    def _record(self, key: str, attempt: LoadAttempt) -> None:
        if key not in self._state.running:
            self._state.running[key] = attempt
            self._save()

    def _save(self) -> None:
        with contextlib.suppress(Unavailable), atomic_file(self.path) as file:
            file.write(self._state.model_dump_json().encode())


def _pause(attempts: int) -> float:
    """The pause in seconds. The first interrupted attempt may have any cause, such as a restart by an
    operator.
    """
    return crash_pause(attempts - 1) if attempts > 1 else 0.0
