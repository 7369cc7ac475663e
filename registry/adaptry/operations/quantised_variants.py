"""Quantised copies and their originals, among the bases that a registry knows.

Whichever of the two is registered first, the other finds it by content. What is said of the pair rests on the
same evidence from either side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.fingerprinting.quantised_copies import is_packed
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.core.errors import CheckFailed, NotFound
from adaptry.core.progress import Progress, no_progress
from adaptry.operations.base_registry import find_record_matches, open_base
from adaptry.registry.bases import Bases
from adaptry.registry.interface import Registry
from adaptry.registry.records import BaseInfo

VariantRole = Literal["original", "copy", "sibling"]
"""What the other base is: this one's source, a quantised copy of it, or another copy of the same model."""


@dataclass(frozen=True, slots=True)
class RelatedBase:
    """A known base that is quantised where this one is not, or the reverse, or both; with evidence."""

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
    """The known bases of which `record` is a quantised copy, and those that are quantised copies of it."""
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
    """What the quantised `checkpoint` was made from, by content, and the sentence that says so.

    Raises `CheckFailed`, with the way to give it, where no base or more than one is known to be that, or
    where its weights are not at hand.
    """
    folder = checkpoint.folder
    originals = [
        each for each in related_bases(registry.bases, fingerprint(checkpoint)) if each.role == "original"
    ]
    if not originals:
        raise CheckFailed(
            f"{folder} is quantised, and no known base is what it was quantised from: give the original with "
            "--base ORIGINAL, or register it first with `adaptry base add`"
        )
    if len(originals) > 1:
        names = ", ".join(each.name for each in originals)
        raise CheckFailed(f"{folder} may be quantised from any of {names}: give the one to use with --base")
    (original,) = originals
    try:
        opened = open_base(registry, str(original.base.id), progress=progress)
    except NotFound as error:
        raise CheckFailed(
            f"{folder} is quantised from {original.name}, whose weights are not at hand: give them with"
            f" --base ORIGINAL ({error.message})"
        ) from error
    return opened, f"{folder} is {original.sentence()}; the weights of {original.name} are used"
