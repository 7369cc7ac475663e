"""The desired state: which version each name should serve. That is the alias's version, or the version of a
rollout to which this worker is assigned.

If that version has failed, the version that was served before stays desired, as long as it is not withdrawn.
A withdrawn version is not replaced by an older one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.serving.follow.last_use import LastUse
from adaptry.integrations.serving.follow.plan import DesiredAdapter
from adaptry.integrations.serving.worker.backoff import Backoff, ServedVersion
from adaptry.integrations.serving.worker.recall_executor import RecallExecutor
from adaptry.integrations.serving.worker.state_file import StateFile
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import RolloutAssignment


@dataclass(slots=True)
class DesiredState:
    """Computes the versions that should be loaded. `assignments` are the rollouts that the registry has
    assigned to this worker; `pinned` and `preloaded` are the names that get a slot before all others."""

    registry: Registry
    state_file: StateFile
    backoff: Backoff
    recalls: RecallExecutor
    preloaded: frozenset[str]
    pinned: frozenset[str]
    last_use: LastUse
    _rollout_versions: dict[Digest, VersionInfo] = field(default_factory=dict)

    def compute(self, assignments: Sequence[RolloutAssignment]) -> list[DesiredAdapter]:
        """For each name, the best version that may be served and does not wait for a retry. Forgets the
        failures of versions that are no longer desired."""
        assignment_of = {f"{one.name}@{one.alias}": one for one in assignments}
        desired: list[DesiredAdapter] = []
        asked: set[ServedVersion] = set()
        for ref, version in self.state_file.state.meant.items():
            # A withdrawn version has no fallback: no alias points at the version that was served before it.
            before = self.state_file.state.ours.get(ref) if self.is_usable(version) else None
            choices = [version, before]
            if assignment := assignment_of.get(ref):
                choices.insert(0, self._rollout_version(assignment.name, assignment.digest))
            usable = [one for one in choices if one and self.is_usable(one)]
            asked |= {(ref, one.digest) for one in usable}
            best = next((one for one in usable if not self.backoff.is_blocked((ref, one.digest))), None)
            if best is not None:
                desired.append(self._desired(ref, best))
        self.backoff.retain(asked)
        return desired

    def all_targets(self, assignments: Sequence[RolloutAssignment]) -> list[tuple[str, VersionInfo]]:
        """Every version that a name should serve, including those that failed or are withdrawn."""
        found = list(self.state_file.state.meant.items())
        found += [
            (f"{one.name}@{one.alias}", version)
            for one in assignments
            if (version := self._rollout_versions.get(one.digest))
        ]
        return found

    def _desired(self, ref: str, version: VersionInfo) -> DesiredAdapter:
        return DesiredAdapter(
            ref,
            version,
            is_preloaded=ref in self.preloaded,
            is_pinned=ref in self.pinned,
            last_used=self.last_use.get(ref),
            has_failed=self.backoff.failure_reason((ref, version.digest)) is not None,
        )

    def is_usable(self, version: VersionInfo) -> bool:
        """Whether the version may be used, since it is not withdrawn."""
        return version.state not in WITHDRAWN and version.digest not in self.recalls.withdrawn

    def _rollout_version(self, name: AdapterName, digest: Digest) -> VersionInfo | None:
        """The version that a rollout deploys; None if the registry does not answer now."""
        if digest not in self._rollout_versions:
            try:
                self._rollout_versions[digest] = self.registry.versions.get(Ref.of_revision(name, digest))
            except AdaptryError:
                return None
        return self._rollout_versions[digest]
