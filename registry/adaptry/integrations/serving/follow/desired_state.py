"""What each name should stand for: the alias's version, or that of a rollout whose turn it is.

Where that cannot be had, it is what was there before, as long as that may be served. What is withdrawn is followed by nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.refs import AdapterName, ByDigest, Ref
from adaptry.integrations.serving.follow.backoff import Backoff, ServedVersion
from adaptry.integrations.serving.follow.plan import DesiredAdapter
from adaptry.integrations.serving.follow.recall_executor import RecallExecutor
from adaptry.integrations.serving.follow.state_file import StateFile
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import RolloutAssignment


@dataclass(slots=True)
class DesiredState:
    """`turns`, wherever they are asked for, are the rollouts that it is this worker's turn to follow; `first` are the names that
    are the last to be left out."""

    registry: Registry
    state_file: StateFile
    backoff: Backoff
    recalls: RecallExecutor
    preloaded: frozenset[str]
    _rollout_versions: dict[Digest, VersionInfo] = field(default_factory=dict)

    def compute(self, turns: Sequence[RolloutAssignment]) -> list[DesiredAdapter]:
        """For each name the best version that may be served and has not failed lately. Failures of what nobody asks for any
        more are forgotten."""
        turn_of = {f"{one.name}@{one.alias}": one for one in turns}
        wanted: list[DesiredAdapter] = []
        asked: set[ServedVersion] = set()
        for ref, version in self.state_file.state.meant.items():
            # What is withdrawn is followed by nothing: what was there before it is no longer meant by anyone.
            before = self.state_file.state.ours.get(ref) if self.is_usable(version) else None
            choices = [version, before]
            if turn := turn_of.get(ref):
                choices.insert(0, self._rollout_version(turn.name, turn.digest))
            usable = [one for one in choices if one and self.is_usable(one)]
            asked |= {(ref, one.digest) for one in usable}
            best = next((one for one in usable if not self.backoff.is_blocked((ref, one.digest))), None)
            if best is not None:
                wanted.append(DesiredAdapter(ref, best, ref in self.preloaded))
        self.backoff.retain(asked)
        return wanted

    def all_targets(self, turns: Sequence[RolloutAssignment]) -> list[tuple[str, VersionInfo]]:
        """Every version that some name should stand for, whether it can be had or not."""
        found = list(self.state_file.state.meant.items())
        found += [
            (f"{turn.name}@{turn.alias}", version)
            for turn in turns
            if (version := self._rollout_versions.get(turn.digest))
        ]
        return found

    def is_usable(self, version: VersionInfo) -> bool:
        """Whether nobody has withdrawn it."""
        return version.state not in WITHDRAWN and version.digest not in self.recalls.withdrawn

    def _rollout_version(self, name: AdapterName, digest: Digest) -> VersionInfo | None:
        """The version that a rollout leads to. None where it cannot be asked for now."""
        if digest not in self._rollout_versions:
            try:
                self._rollout_versions[digest] = self.registry.version(Ref(name, ByDigest(digest.hex)))
            except AdaptryError:
                return None
        return self._rollout_versions[digest]
