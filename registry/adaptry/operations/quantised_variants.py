"""Finds quantised copies and their originals among the registered bases.

Whichever of the two is registered first, the other is matched by content, with the same evidence in both
directions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.fingerprinting.quantised_copies import is_packed
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.core.errors import CheckFailed, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.operations.base_registry import find_record_matches, open_base
from adaptry.registry.bases import Bases
from adaptry.registry.interface import Registry

if TYPE_CHECKING:
    from adaptry.registry.base_info import BaseInfo

VariantRole = Literal["original", "copy", "sibling"]
"""The other base's relation to this one: its original, a quantised copy, or another copy of the same
model.
"""


@dataclass(frozen=True, slots=True)
class RelatedBase:
    """A related base, at least one of the two being quantised, with evidence."""

    base: BaseInfo
    role: VariantRole
    evidence: str

    @property
    def name(self) -> str:
        return self.base.names[0] if self.base.names else self.base.id.brief

    def sentence(self) -> str:
        match self.role:
            case "original":
                return f"a quantised copy of {self.name} ({self.evidence})"
            case "copy":
                return f"{self.name} is a quantised copy of it ({self.evidence})"
            case "sibling":
                return f"a copy of the same model as {self.name} ({self.evidence})"


def related_bases(bases: Bases, record: BaseRecord) -> tuple[RelatedBase, ...]:
    """The known bases that `record` is a quantised copy of, and those that are quantised copies of it."""
    found: list[RelatedBase] = []
    for candidate in find_record_matches(bases, record):
        if candidate.base.id == record.id or candidate.match.level != "cast":
            continue
        is_copy, is_of_copy = is_packed(record), is_packed(bases.record(candidate.base.id))
        if is_copy or is_of_copy:
            role: VariantRole = "sibling" if is_copy and is_of_copy else "original" if is_copy else "copy"
            found.append(RelatedBase(candidate.base, role, candidate.match.evidence))
    return tuple(found)


def open_original(
    registry: Registry, checkpoint: HfCheckpoint, progress: Progress = no_progress
) -> tuple[HfCheckpoint, str]:
    """The original of the quantised `checkpoint`, found by content, and a sentence with the evidence.

    Raises `CheckFailed`, with a remedy, if no base or more than one matches, or if its weights are not found.
    """
    folder = checkpoint.folder
    originals = [
        each for each in related_bases(registry.bases, fingerprint(checkpoint)) if each.role == "original"
    ]
    if not originals:
        raise CheckFailed(
            f"{folder} is quantised, and its original is not registered: pass the original with "
            "--base ORIGINAL, or register it first with `adaptry base add`"
        )
    if len(originals) > 1:
        names = ", ".join(each.name for each in originals)
        raise CheckFailed(f"{folder} may be quantised from any of {names}: pass the one to use with --base")
    (original,) = originals
    try:
        opened = open_base(registry, str(original.base.id), progress=progress)
    except NotFound as error:
        raise CheckFailed(
            f"{folder} is quantised from {original.name}, whose weights were not found: pass them with"
            f" --base ORIGINAL ({error.message})"
        ) from error
    return opened, f"{folder} is {original.sentence()}; the weights of {original.name} are used"
