"""Adds the results files in a pushed folder as evidence of the new version.

A file that cannot be read or sent does not undo the push; the result names it, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adaptry.core.display import format_count
from adaptry.core.errors import AdaptryError
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.operations.evidence.addition import add_evidence
from adaptry.operations.result_files import group_by_run
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo


@dataclass(frozen=True, slots=True)
class FolderEvidence:
    """The number of added values, the files that they came from, and the reasons why other files were not
    added.
    """

    added: int = 0
    files: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    def sentences(self, version: VersionInfo) -> tuple[str, ...]:
        """Messages for the user; empty if nothing was new."""
        if not self.added:
            return self.failures
        values = format_count(self.added, "value")
        added = f"added {values} of {', '.join(self.files)} as evidence of {version.label}"
        return (added, *self.failures)


def add_folder_evidence(
    registry: Registry, paths: Sequence[Path], version: VersionInfo, progress: Progress = no_progress
) -> FolderEvidence:
    """Adds those of the files at `paths` (`find_result_files`) that can be added."""
    try:
        runs = group_by_run(paths)
    except AdaptryError as error:
        return FolderEvidence(failures=(f"not added as evidence: {error.message}",))
    added, files, failures = 0, list[str](), list[str]()
    for run in runs:
        try:
            some = add_evidence(
                registry, version.revision_ref, (run.results, *run.samples.values()), progress=progress
            )
        except AdaptryError as error:
            name = run.results.name
            reason = error.message if name in error.message else f"{name}, {error.message}"
            failures.append(f"not added as evidence: {reason}")
            continue
        if count := sum(one.added for one in some):
            added += count
            files.append(run.results.name)
    return FolderEvidence(added, tuple(files), tuple(failures))
