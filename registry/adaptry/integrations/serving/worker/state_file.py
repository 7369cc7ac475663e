"""A worker's state across restarts: names that it has loaded, and recalled versions that it has dropped.

A version is recorded before it is loaded, so that after a crash the worker still knows which adapters it may
have loaded. Its path is recorded after the load, so that a load that failed is never listed. With the file,
an engine that restarts empty is filled again even while the registry is down. Clients of an engine that has
no adapter names themselves read the file too (`names`: name → path).
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from adaptry.core.digest import Digest
from adaptry.core.errors import Unavailable
from adaptry.core.files.atomic_file import atomic_file
from adaptry.core.files.durable import write_error
from adaptry.core.refs import AdapterName
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import RecallProof


class WorkerState(BaseModel):
    """The stored state.

    `meant`: the version that each watched ref last resolved to. `generations`: the highest generation seen of
    each alias that was loaded. `ours`: the version this worker loaded, or tried to load, under each name;
    `names`: the path from which each loaded name was loaded. `confirmed`: the names and digests that the
    registry has acknowledged in a report. `recalled`: the adapters of the recalled versions that were dropped
    here.
    `recall_generations`: the generation of each of their states. `served`: the engine's names for its base.
    `base`: the base for which the loaded adapters were checked, which the engine serves since `engine_start`
    (the time that it reports, as a Unix time, or its process's `EngineProcess.start`).
    `epoch`: the registry's epoch at the last contact. `proofs`:
    its signed recalls, in case a restored registry lacks them."""

    meant: dict[str, VersionInfo] = {}
    generations: dict[str, int] = {}
    ours: dict[str, VersionInfo] = {}
    names: dict[str, str] = {}
    confirmed: list[tuple[str, Digest]] = []
    recalled: dict[Digest, AdapterName] = {}
    recall_generations: dict[Digest, int] = {}
    served: tuple[str, ...] = ()
    base: Digest | None = None
    engine_start: float | str | None = Field(
        None,
        validation_alias=AliasChoices("engine_start", "engine_started_at"),  # the name in older files
    )
    epoch: str | None = None
    proofs: dict[Digest, RecallProof] = {}


class StateFile:
    """The state file at `path`, created with the first save. Only one worker may write it."""

    def __init__(self, path: Path) -> None:
        """Reads the file. An unreadable file counts as empty, since the engine lists what it has loaded."""
        self.path = path
        self.state: WorkerState = WorkerState()
        with contextlib.suppress(FileNotFoundError, ValidationError, UnicodeDecodeError):
            self.state = WorkerState.model_validate_json(path.read_text(encoding="utf-8"))
        self._written = self.state.model_dump_json()

    def save_if_possible(self) -> None:
        """Like `save`, but ignores write errors, for steps that must not fail because of the file; the next
        save writes the same state."""
        with contextlib.suppress(Unavailable):
            self.save()

    def save(self) -> None:
        """Replaces the file atomically and flushes it to disk. Raises `StorageFull`, `Unavailable`."""
        text = self.state.model_dump_json()
        if text == self._written:
            return
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(error, self.path) from error
        with atomic_file(self.path) as file:
            file.write(text.encode())
        self._written = text
