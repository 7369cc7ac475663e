"""Inspects the engine and the base that it serves: at the start, and after each outage or restart.

An engine can come back between two passes with another base, under the same address and name. A restart is
noticed by the time at which the engine started, if it reports that or its process runs on this machine,
otherwise by adapters that it no longer lists. While it runs, it keeps its base, even if the base's folder
changes meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Invalid, NotFound, Unauthenticated, Unavailable
from adaptry.integrations.engine_probe import EngineInfo
from adaptry.integrations.serving.compatibility import EngineProfile
from adaptry.integrations.serving.engine_process import EngineProcess, EngineProcessFinder
from adaptry.integrations.serving.engines import Engine, EngineAdapter
from adaptry.integrations.serving.worker.state_file import StateFile


class EngineInspection:
    """`info` and `profile` of the engine; each is None until it is known."""

    def __init__(
        self,
        engine: Engine,
        state_file: StateFile,
        probe: Callable[[], EngineInfo],
        inspect: Callable[[EngineInfo], EngineProfile],
    ) -> None:
        self._engine = engine
        self._state_file = state_file
        self._probe = probe
        self._inspect = inspect
        self._process_finder = EngineProcessFinder(engine.client.url)
        self._start: float | str | None = None
        self._process: EngineProcess | None = None
        self._names: frozenset[str] = frozenset()
        self._is_known = False
        self.info: EngineInfo | None = None
        self.profile: EngineProfile | None = None

    def forget(self) -> None:
        """Forgets the engine after an outage."""
        self.info = self.profile = None

    def note_names(self, names: Collection[str]) -> None:
        """Records the names that the engine must still list in the next pass, unless it is restarted."""
        self._names = frozenset(names)

    def list_adapters(self, *, is_registry_down: bool) -> tuple[EngineAdapter, ...]:
        """The adapters of the inspected engine. While the registry is down, the profile may stay unknown.

        Raises the errors of `probe` and `inspect`. After they have once succeeded, a different engine counts
        as `Unavailable`: until the known engine is back, anything may answer in its place, and that does not
        make an option of this worker wrong.
        """
        try:
            loaded = self._engine.list_adapters()
            self._engine.deselect_adapters()
            self._refresh({one.name for one in loaded}, is_registry_down)
        except (NotFound, Invalid, CheckFailed) as error:
            if not self._is_known:
                raise
            raise Unavailable(error.message) from error
        return loaded

    def _refresh(self, names: Collection[str], is_registry_down: bool) -> None:
        """Inspects an engine that is new or was restarted and lists `names` now."""
        if self._is_restarted(names):
            self.forget()
        if self.info is None:
            self.info = self._located(self._probe())
        if self.profile is not None:
            return
        try:
            self.profile = self._inspect(self.info)
        except (Unavailable, Unauthenticated):
            if not is_registry_down:
                raise
            return
        self._is_known = True
        if not is_registry_down:
            self._state_file.state.served = self.info.models

    def _located(self, info: EngineInfo) -> EngineInfo:
        """Adds the known facts about the engine's process."""
        process = self._process_finder.find()
        is_own = process is not None and process.is_engine(self._engine.started_at(), info.models)
        self._process = process if is_own else None
        self._start = self._current_start()
        reported = self._engine.started_at()
        return replace(
            info,
            started_at=self._process.started_at if reported is None and self._process else reported,
            base_id=self._known_base,
            folder=self._process.folder if self._process else None,
        )

    @property
    def base_id(self) -> Digest | None:
        """The served base, if it is known."""
        return self.profile.base.id if self.profile else None

    @property
    def _known_base(self) -> Digest | None:
        """The base that this engine was found to serve, if it has not been restarted since then."""
        state = self._state_file.state
        is_same = self._start is not None and self._start == state.engine_start
        return state.base if is_same else None

    @property
    def is_base_changed(self) -> bool:
        """Whether the loaded adapters were checked for another base."""
        return self.base_id is not None and self._state_file.state.base not in (None, self.base_id)

    @property
    def is_same_as_served(self) -> bool:
        """Whether this is the engine that served before, as far as that is known without the registry."""
        is_same_model = self.info is not None and self.info.models == self._state_file.state.served
        return is_same_model and not self.is_base_changed

    def accept_base(self) -> None:
        """Records that adapters are checked for this base from now on, and that no loaded adapter is
        unchecked.
        """
        if self.base_id is not None:
            self._state_file.state.base = self.base_id
            self._state_file.state.engine_start = self._start

    def _is_restarted(self, names: Collection[str]) -> bool:
        """Whether the engine was restarted. Without a known start time, only adapters that are still listed
        show that the process is the same.
        """
        has_names = self._names <= set(names)
        if not has_names:
            self._process_finder.forget()  # another engine may listen in front of it
        if self._process is not None and self._process_finder.find() != self._process:
            return True
        before, self._start = self._start, self._current_start()
        return self._start != before if self._start is not None else not (self._names and has_names)

    def _current_start(self) -> float | str | None:
        """A value that distinguishes this start of the engine from others: the start time that it reports
        (Unix time), else the start of its process."""
        reported = self._engine.started_at()
        return self._process.start if reported is None and self._process else reported
