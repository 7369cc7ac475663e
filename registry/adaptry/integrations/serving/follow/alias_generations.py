"""Detects a registry that is behind: one that has an alias at a lower generation than was seen here.

Such a registry is a replica that lags, or a copy restored from an old backup without `adaptry restore`.
Generations are in the state file, so they survive restarts. Only names that this worker has loaded are
checked, with one request when a name is loaded and one for each change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from adaptry.core.errors import NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import Label, Ref
from adaptry.integrations.serving.worker.state_file import StateFile
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo


@dataclass(slots=True)
class AliasGenerations:
    """The highest generation seen of each alias that was loaded here."""

    registry: Registry
    state_file: StateFile
    refused: dict[str, str] = field(default_factory=dict)
    """Why the registry's answer does not count, by name, after the last `current`."""

    def current(self, answered: Mapping[str, VersionInfo]) -> dict[str, VersionInfo]:
        """The versions that the refs select: those that the registry `answered`, or the previous versions of
        refs for which the registry is behind. Raises the errors of the registry."""
        before = self.state_file.state.meant
        refused: dict[str, str] = {}
        for name, version in answered.items():
            is_same = name in before and before[name].digest == version.digest
            if name in before and (reason := self._step_back(name, is_same=is_same)):
                refused[name] = reason
        self.refused = refused
        return {name: before[name] if name in refused else version for name, version in answered.items()}

    def _step_back(self, name: str, *, is_same: bool) -> str | None:
        """The reason to consider the registry behind for the alias; None if it is not. Records the alias's
        generation.
        """
        state = self.state_file.state
        seen = state.generations.get(name)
        if (is_same and seen is not None) or (seen is None and name not in state.ours):
            return None
        found = self._generation(Ref.parse(name))
        if found is None:
            return None
        if seen is not None and found < seen:
            return (
                f"the registry is behind: it has {name} at generation {found}, but this worker has already"
                f" seen {seen}. Is it a lagging replica, or was it restored from an old backup? If the"
                f" registry was set up again, stop this worker and remove {self.state_file.path}"
            )
        state.generations[name] = found
        return None

    def _generation(self, ref: Ref) -> int | None:
        if not isinstance(ref.selector, Label):
            return None
        try:
            return self.registry.aliases.get(ref.name, ref.selector.label).generation
        except NotFound:
            return None
