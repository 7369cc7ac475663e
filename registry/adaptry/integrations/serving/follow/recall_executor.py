"""Dropping what was withdrawn, and proving it: the name first, then the files, then a request that must be refused.

The files stay until no request is under way, since an engine that has pushed weights out fetches them from there (vLLM ends if they
are gone). After that, an engine that loads again what it has unloaded, from a path that it remembers (SGLang), finds nothing there;
what it loaded in between is unloaded at the next look. Dropped is said only of what is off the disk, is not listed, has no request
under way, and is not answered with when asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Unavailable
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.refs import AdapterName
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engines import Engine, EngineAdapter
from adaptry.integrations.serving.follow.state_file import StateFile
from adaptry.registry.records import VersionInfo
from adaptry.registry.state_warnings import state_warning
from adaptry.registry.workers import DroppedAdapter, RecallProof, Withdrawal


@dataclass(slots=True)
class RecallExecutor:
    """The withdrawn versions that this worker has or had; which they are is remembered across restarts."""

    engine: Engine
    cache: Cache
    state_file: StateFile
    log: Callable[[str], None]
    _names: dict[Digest, set[str]] = field(default_factory=dict)
    _reasons: dict[Digest, str] = field(default_factory=dict)
    _restarted: set[Digest] = field(default_factory=set)

    @property
    def withdrawn(self) -> Mapping[Digest, AdapterName]:
        """Whose each is."""
        return self.state_file.state.recalled

    def update(
        self,
        meant: Mapping[str, VersionInfo],
        withdrawals: Iterable[Withdrawal],
        loaded: Sequence[EngineAdapter],
    ) -> None:
        """Takes to heart what the registry says; what it takes back may be had again."""
        reasons = {one.digest: (one.name, f"{one.name}@{one.number} is {one.state}") for one in withdrawals}
        for version in meant.values():
            if version.state in WITHDRAWN:
                reasons[version.digest] = (version.name, state_warning(version) or "withdrawn")
            else:
                self._readmit(version.digest)
        for digest, (name, reason) in reasons.items():
            if digest not in self.withdrawn:
                self.log(f"{reason}: it is dropped here")
            self._reasons[digest] = reason
            self.state_file.state.recalled[digest] = name
            self._names.setdefault(digest, set()).update(one.name for one in loaded if one.digest == digest)
        self.state_file.save_if_possible()

    def store_proofs(self, withdrawals: Iterable[Withdrawal], epoch: str | None) -> None:
        """Keeps the registry's signatures of what it withdrew, for when it is restored and has forgotten."""
        for one in withdrawals:
            if one.proof and epoch:
                self.state_file.state.proofs[one.digest] = RecallProof(
                    name=one.name, digest=one.digest, state=one.state, epoch=epoch, proof=one.proof
                )
        self.state_file.save_if_possible()

    def delete_files(self, loaded: Sequence[EngineAdapter]) -> None:
        """Removes the files of what is not loaded any more, and that no request is under way for."""
        busy = self.engine.names_in_use()
        for digest in self.withdrawn:
            is_used = any(one.digest == digest for one in loaded) or self._names.get(digest, set()) & busy
            if not is_used and self.cache.recall_reason(digest) is None:
                try:
                    self.cache.recall(digest, self._reasons.get(digest, "withdrawn"))
                except Unavailable as error:  # it is not said to be dropped then, and tried again
                    self.log(error.message)

    def confirm_dropped(
        self, withdrawals: Sequence[Withdrawal], loaded: Sequence[EngineAdapter]
    ) -> tuple[DroppedAdapter, ...]:
        """Of what the registry waits for: the versions that are gone from here for good."""
        if not self.engine.is_unload_final and not self._ensure_restarted(
            {one.digest for one in withdrawals}
        ):
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
        if self.cache.recall_reason(digest) is None:
            return False
        taken = {one.name for one in loaded}
        return all(name in taken or self.engine.refuses(name) for name in names)

    def _ensure_restarted(self, digests: set[Digest]) -> bool:
        """Whether the engine was started anew since the files of these versions went; now, if need be."""
        if digests <= self._restarted:
            return True
        try:
            self.engine.restart()
        except CheckFailed as error:
            self.log(error.message)
            return False
        self._restarted |= digests
        return True

    def _readmit(self, digest: Digest) -> None:
        """A recall of ours that is none any more; what an operator recalled on this machine stays so."""
        self._names.pop(digest, None)
        self._restarted.discard(digest)
        self.state_file.state.proofs.pop(digest, None)
        if self.state_file.state.recalled.pop(digest, None):
            self.cache.readmit(digest)
