"""What `load` did to a model: which adapter is in it now, under which name, and how sure its base is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptry.adapters.base_record import Match
from adaptry.registry.records import VersionInfo

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, slots=True)
class LoadResult:
    """`model` is the PEFT model, which wraps what was given unless that was one already.

    `version` is None for a folder. `base` is how the model's files match the version's base; None where that
    could not be compared by content.
    """

    model: PeftModel
    name: str
    version: VersionInfo | None
    base: Match | None
