"""Resuming from a checkpoint or a version: its files in a folder, and the parent for the result."""

from __future__ import annotations

from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import Label, Ref
from adaptry.operations.transfer import pull
from adaptry.operations.transfer.drafts import fetch_draft
from adaptry.registry.interface import Registry


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """An adapter to resume from; `folder` for PEFT's `from_pretrained(model, folder, is_trainable=True)`."""

    ref: str
    digest: Digest
    folder: Path


def resume(registry: Registry, ref: Ref | str, folder: Path | str) -> ResumePoint:
    """Writes the adapter of `ref`, a version or a draft on a branch, into the new folder `folder`.

    Only the adapter is written: a registry stores no optimizer state, which is a pickle. Raises `NotFound`,
    `Withdrawn`, `Conflict` if the folder exists, `DigestMismatch`.
    """
    ref = Ref.parse(ref) if isinstance(ref, str) else ref
    target = Path(folder).expanduser()
    try:
        version = pull(registry, ref, target)
        return ResumePoint(version.label, version.digest, target)
    except NotFound:
        if not isinstance(ref.selector, Label):
            raise
    commit = fetch_draft(registry, ref.name, ref.selector.label, target)
    return ResumePoint(str(ref), commit.digest, target)
