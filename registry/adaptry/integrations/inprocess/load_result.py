"""The result of loading into a model: the adapter, its name in the model, and how well the base matches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.base_record import Match
from adaptry.core.display import short_repr
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.records import VersionInfo

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, slots=True)
class LoadResult:
    """`model` is the PEFT model, which wraps the given model unless that already was one.

    `version` is None for a folder. `base` is how the model's files match the version's base; None if they
    could not be compared by content.
    """

    model: PeftModel
    name: str
    version: VersionInfo | None
    base: Match | None

    def __repr__(self) -> str:
        version = self.version.label if self.version else "from a folder"
        base = f"base {self.base.level.replace('_', ' ')}" if self.base else "base not compared"
        return short_repr(self, f"{version} as {self.name!r}", type(self.model).__name__, base)
