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
from adaptry.core.errors import Refused, Unavailable
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.refs import AdapterName
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engines import Engine, Loaded
from adaptry.integrations.serving.follow.state_file import Memory
from adaptry.registry.records import VersionInfo
from adaptry.registry.state_warnings import caution
from adaptry.registry.workers import Dropped, RecallProof, Withdrawal


@dataclass(slots=True)
class Recalling:
    """The withdrawn versions that this worker has or had; which they are is remembered across restarts."""

    engine: Engine
    cache: Cache
    memory: Memory
    tell: Callable[[str], None]
    _names: dict[Digest, set[str]] = field(default_factory=dict)
    _reasons: dict[Digest, str] = field(default_factory=dict)
    _renewed: set[Digest] = field(default_factory=set)

    @property
    def withdrawn(self) -> Mapping[Digest, AdapterName]:
        """Whose each is."""
        return self.memory.now.recalled

    def note(
        self, meant: Mapping[str, VersionInfo], told: Iterable[Withdrawal], loaded: Sequence[Loaded]
    ) -> None:
        """Takes to heart what the registry says; what it takes back may be had again."""
        reasons = {one.digest: (one.name, f"{one.name}@{one.number} is {one.state}") for one in told}
        for version in meant.values():
            if version.state in WITHDRAWN:
                reasons[version.digest] = (version.name, caution(version) or "withdrawn")
            else:
                self._take_back(version.digest)
        for digest, (name, reason) in reasons.items():
            if digest not in self.withdrawn:
                self.tell(f"{reason}: it is dropped here")
            self._reasons[digest] = reason
            self.memory.now.recalled[digest] = name
            self._names.setdefault(digest, set()).update(one.name for one in loaded if one.digest == digest)
        self.memory.note()

    def keep_proofs(self, told: Iterable[Withdrawal], epoch: str | None) -> None:
        """Keeps the registry's signatures of what it withdrew, for when it is restored and has forgotten."""
        for one in told:
            if one.proof and epoch:
                self.memory.now.proofs[one.digest] = RecallProof(
                    name=one.name, digest=one.digest, state=one.state, epoch=epoch, proof=one.proof
                )
        self.memory.note()

    def clear(self, loaded: Sequence[Loaded]) -> None:
        """Removes the files of what is not loaded any more, and that no request is under way for."""
        busy = self.engine.busy()
        for digest in self.withdrawn:
            is_used = any(one.digest == digest for one in loaded) or self._names.get(digest, set()) & busy
            if not is_used and self.cache.recalled(digest) is None:
                try:
                    self.cache.forget(digest, self._reasons.get(digest, "withdrawn"))
                except Unavailable as error:  # it is not said to be dropped then, and tried again
                    self.tell(error.message)

    def dropped(self, told: Sequence[Withdrawal], loaded: Sequence[Loaded]) -> tuple[Dropped, ...]:
        """Of what the registry waits for: the versions that are gone from here for good."""
        if not self.engine.forgets and not self._is_renewed({one.digest for one in told}):
            return ()
        busy = self.engine.busy()
        return tuple(
            Dropped(name=one.name, digest=one.digest)
            for one in told
            if one.digest in self.withdrawn and self._is_gone(one.digest, loaded, busy)
        )

    def _is_gone(self, digest: Digest, loaded: Sequence[Loaded], busy: frozenset[str]) -> bool:
        names = self._names.get(digest, set())
        if any(one.digest == digest for one in loaded) or names & busy:
            return False
        if self.cache.recalled(digest) is None:
            return False
        taken = {one.name for one in loaded}
        return all(name in taken or self.engine.refuses(name) for name in names)

    def _is_renewed(self, digests: set[Digest]) -> bool:
        """Whether the engine was started anew since the files of these versions went; now, if need be."""
        if digests <= self._renewed:
            return True
        try:
            self.engine.renew()
        except Refused as error:
            self.tell(error.message)
            return False
        self._renewed |= digests
        return True

    def _take_back(self, digest: Digest) -> None:
        """A recall of ours that is none any more; what an operator recalled on this machine stays so."""
        self._names.pop(digest, None)
        self._renewed.discard(digest)
        self.memory.now.proofs.pop(digest, None)
        if self.memory.now.recalled.pop(digest, None):
            self.cache.readmit(digest)
