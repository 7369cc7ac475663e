"""Changes the state of a version by compare-and-swap: reads the current state, decides, and swaps.

If someone else changes it between the read and the change, this raises `Conflict` and changes nothing.
"""

from __future__ import annotations

from adaptry.core.display import short_repr
from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import State
from adaptry.core.refs import Latest, Ref
from adaptry.registry.interface import Registry
from adaptry.registry.records import StateChange, VersionInfo


@dataclass(frozen=True, slots=True)
class StateChangeResult:
    """The version after the change, and its previous state; `is_change` is False if the state was already
    set.
    """

    version: VersionInfo
    was: State
    is_change: bool

    def __repr__(self) -> str:
        return short_repr(self, self.version.label, f"{self.was} → {self.version.state}")


def change_state(registry: Registry, ref: Ref, change: StateChange) -> StateChangeResult:
    """Sets the state of the version that `ref` selects now.

    Raises `Invalid` for a bare name, since the change may alter which version it selects, and the errors of
    `versions.set_state`.
    """
    if isinstance(ref.selector, Latest):
        raise Invalid(
            f"the bare name {ref.name} would select another version after the change: pass {ref.name}@NUMBER,"
            " an alias, or a digest"
        )
    seen = registry.versions.get(ref)
    version = registry.versions.set_state(ref.name, seen.digest, change, seen.state_generation)
    return StateChangeResult(version, seen.state, version.last_state_change != seen.last_state_change)
