"""Drops withdrawn versions, and verifies this: unloads, deletes files, sends a request that must fail.

The files stay until no request uses them, because an engine reads evicted weights from there again (vLLM
exits if the files do not exist). Once they are deleted, an engine that reloads an unloaded adapter from a
path it remembers (SGLang) finds no files; an adapter that it reloaded in between is unloaded in the next
pass. A version is reported as dropped only if its files are deleted, the engine does not list it, no request
uses it, and a test request for it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Protocol

from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.refs import AdapterName
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engines import EngineAdapter
from adaptry.integrations.serving.worker.state_file import StateFile
from adaptry.registry.records import VersionInfo
from adaptry.registry.state_warnings import state_warning
from adaptry.registry.workers import DroppedAdapter, RecallProof, Withdrawal


class RecallEngine(Protocol):
    """The part of an engine that recalls use. `Engine` implements it over HTTP."""

    @property
    def is_unload_final(self) -> bool: ...

    def restart(self) -> None: ...

    def names_in_use(self) -> frozenset[str]: ...

    def refuses(self, name: str) -> bool: ...


@dataclass(slots=True)
class RecallExecutor:
    """Executes recalls of the versions that this worker has or had. Recalls are kept in the state file."""

    engine: RecallEngine
    cache: Cache
    state_file: StateFile
    log: Callable[[str], None]
    _names: dict[Digest, set[str]] = field(default_factory=dict)
    _reasons: dict[Digest, str] = field(default_factory=dict)
    _restarted: set[Digest] = field(default_factory=set)

    @property
    def withdrawn(self) -> Mapping[Digest, AdapterName]:
        """The adapter of each withdrawn version, by digest."""
        return self.state_file.state.recalled

    def update(
        self,
        meant: Mapping[str, VersionInfo],
        withdrawals: Iterable[Withdrawal],
        loaded: Sequence[EngineAdapter],
    ) -> None:
        """Records the registry's recalls, and unblocks the versions whose recall it has reversed."""
        for one in withdrawals:
            self._record(one.digest, one.name, f"{one.name}@{one.number} is {one.state}", one.generation)
        for version in meant.values():
            self.note_state(version)
        for adapter in loaded:
            if adapter.digest is not None and adapter.digest in self.withdrawn:
                self.note_name(adapter.digest, adapter.name)
        self.state_file.save_if_possible()

    def note_state(self, version: VersionInfo) -> None:
        """Records a recall, or unblocks a version whose recall the registry has since reversed."""
        if version.state in WITHDRAWN:
            reason = state_warning(version) or "withdrawn"
            self._record(version.digest, version.name, reason, version.state_generation)
        elif self._is_reversed_by(version):
            self._unblock(version.digest)

    def is_changed_by(self, version: VersionInfo) -> bool:
        """Whether `note_state` would change anything."""
        if version.state in WITHDRAWN:
            return version.digest not in self.withdrawn
        return self._is_reversed_by(version)

    def _is_reversed_by(self, version: VersionInfo) -> bool:
        """Whether the version's state reverses its recall. An older state than the known one (an old backup,
        a replica that lags) does not reverse it; neither does the state of another adapter's version with the
        same files."""
        known = self.state_file.state.recall_generations.get(version.digest, -1)
        return self.withdrawn.get(version.digest) == version.name and version.state_generation > known

    def note_name(self, digest: Digest, name: str) -> None:
        """Adds a name that has to be refused before the version counts as dropped."""
        self._names.setdefault(digest, set()).add(name)

    def _record(self, digest: Digest, name: AdapterName, reason: str, generation: int | None) -> None:
        state = self.state_file.state
        if digest not in self.withdrawn:
            self.log(f"{reason}: it is being dropped here")
        if len(reason) >= len(self._reasons.get(digest, "")):  # the registry's own sentence has more detail
            self._reasons[digest] = reason
        state.recalled[digest] = name
        if generation is not None:
            state.recall_generations[digest] = max(generation, state.recall_generations.get(digest, 0))

    def store_proofs(self, withdrawals: Iterable[Withdrawal], epoch: str | None) -> None:
        """Stores the registry's signed recalls, in case it is restored from a backup that lacks them."""
        for one in withdrawals:
            if one.proof and epoch:
                self.state_file.state.proofs[one.digest] = RecallProof(
                    name=one.name, digest=one.digest, state=one.state, epoch=epoch, proof=one.proof
                )
        self.state_file.save_if_possible()

    def delete_files(self, loaded: Sequence[EngineAdapter]) -> None:
        """Deletes the files of withdrawn versions that are unloaded and that no request uses."""
        busy = self.engine.names_in_use()
        for digest in self.withdrawn:
            is_used = any(one.digest == digest for one in loaded) or self._names.get(digest, set()) & busy
            if not is_used and self.cache.recall_reason(digest) is None:
                try:  # files stay as long as this engine or another one may read them
                    self.cache.recall(digest, self._reasons.get(digest, "withdrawn"))
                except Unavailable as error:  # not reported as dropped; the next pass tries again
                    self.log(error.message)

    def confirm_dropped(
        self, withdrawals: Sequence[Withdrawal], loaded: Sequence[EngineAdapter]
    ) -> tuple[DroppedAdapter, ...]:
        """The withdrawals by the registry that are verified as dropped here."""
        unloaded = {one.digest for one in withdrawals} - {one.digest for one in loaded}
        if not self.engine.is_unload_final and not self._ensure_restarted(unloaded):
            return ()
        busy = self.engine.names_in_use()
        return tuple(
            DroppedAdapter(name=one.name, digest=one.digest)
            for one in withdrawals
            if one.digest in self.withdrawn and self._is_gone(one.digest, loaded, busy)
        )

    def _is_gone(self, digest: Digest, loaded: Sequence[EngineAdapter], busy: frozenset[str]) -> bool:
        names = self._names.get(digest, set())
        if any(one.digest == digest for one in loaded) or names & busy:
            return False
        if self.cache.recall_reason(digest) is None or self.cache.has_files(digest):
            return False
        listed = {one.name for one in loaded}
        return all(name in listed or self.engine.refuses(name) for name in names)

    def _ensure_restarted(self, digests: set[Digest]) -> bool:
        """Restarts the engine, unless it was restarted since these versions' files were deleted. Returns
        whether it was."""
        if digests <= self._restarted:
            return True
        try:
            self.engine.restart()
        except CheckFailed as error:
            self.log(error.message)
            return False
        self._restarted |= digests
        return True

    def _unblock(self, digest: Digest) -> None:
        """Reverses a recall by the registry. A version recalled on this machine stays recalled."""
        self._names.pop(digest, None)
        self._restarted.discard(digest)
        self.state_file.state.proofs.pop(digest, None)
        self.state_file.state.recall_generations.pop(digest, None)
        if self.state_file.state.recalled.pop(digest, None):
            self.cache.unblock(digest)
