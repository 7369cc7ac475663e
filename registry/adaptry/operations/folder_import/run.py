"""Carries out a plan: finds the versions that the registry already has, and pushes the others one after
another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.folder_listing import require_own_file
from adaptry.adapters.formats import defines_adapter
from adaptry.core.digest import Digest
from adaptry.core.display import short_repr
from adaptry.core.errors import AdaptryError, Invalid, NotFound, StorageFull, Unauthenticated, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName
from adaptry.operations.base_recognition import BaseRecogniser, BaseSource, RecognisedBase
from adaptry.operations.folder_import.plan import PlannedVersion
from adaptry.operations.folder_scan import open_scanned
from adaptry.operations.result_files import find_result_files
from adaptry.operations.transfer import push
from adaptry.operations.transfer.files import hash_file
from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items

if TYPE_CHECKING:
    from adaptry.core.report import CheckReport
    from adaptry.registry.records import VersionInfo

_MAX_UNAVAILABLE = 2
"""How many adapters in a row may fail because the registry does not answer."""


@dataclass(frozen=True, slots=True)
class VersionImport:
    """The outcome for one adapter of the tree.

    `version` is the version that has it, and `is_new` whether this import created that version; in a dry run,
    an adapter to import has none. Without a version, it is `planned.same_as` another, or `error` is the
    reason. `base` is the base that was recognised. `notes` are the warnings of the checks, except that its
    base is not registered, and why results files were not added as evidence.
    """

    planned: PlannedVersion
    version: VersionInfo | None = None
    is_new: bool = False
    error: AdaptryError | None = None
    base: RecognisedBase | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_to_import(self) -> bool:
        """Whether a dry run found that it would be imported."""
        return self.version is None and self.error is None and self.planned.same_as is None

    def __repr__(self) -> str:
        label = self.version.label if self.version else str(self.planned.name)
        problem = self.error.message if self.error else None
        return short_repr(self, str(self.planned.adapter.path), label, problem)


def run_import(
    registry: Registry,
    plan: Iterable[PlannedVersion],
    *,
    base: BaseSource | None = None,
    is_dry_run: bool = False,
    progress: Progress = no_progress,
) -> Iterator[VersionImport]:
    """Imports the planned versions and yields the result of each. An error affects only its adapter.

    `base` is the base of all adapters; by default, each config names its own. An adapter whose weights and
    config the registry has in a version of that name is not pushed again. Results files are added as evidence
    in both cases. Raises `StorageFull`, `Unauthenticated`, and `Unavailable` if two adapters in a row fail
    with it, since the others would fail too.
    """
    importer = _Importer(registry, BaseRecogniser(registry.bases), base, progress)
    unavailable = 0
    for planned in plan:
        if planned.same_as is not None or planned.error is not None:
            yield VersionImport(planned, error=planned.error)
            continue
        try:
            result = importer.find(planned) if is_dry_run else importer.store(planned)
        except (StorageFull, Unauthenticated):
            raise
        except AdaptryError as error:
            unavailable = unavailable + 1 if isinstance(error, Unavailable) else 0
            if unavailable == _MAX_UNAVAILABLE:
                raise
            yield VersionImport(planned, error=error)
        else:
            unavailable = 0
            yield result


@dataclass(slots=True)
class _Importer:
    """Imports into one registry. The versions of the adapter that is being imported are listed once."""

    registry: Registry
    recogniser: BaseRecogniser
    base: BaseSource | None
    progress: Progress
    listed: tuple[AdapterName, dict[Digest, list[VersionInfo]]] | None = None

    def find(self, planned: PlannedVersion) -> VersionImport:
        """The version that the registry already has, if there is one. Raises the errors of `open_scanned` and
        `BaseRecogniser.base_of`.
        """
        adapter = open_scanned(planned.adapter)
        recognised = self.recogniser.base_of(adapter, self.base)
        return VersionImport(planned, self._existing(adapter, planned.name), base=recognised)

    def store(self, planned: PlannedVersion) -> VersionImport:
        """The existing version, or a new one, with its evidence. Raises the errors of `find` and `push`."""
        adapter = open_scanned(planned.adapter)
        recognised = self.recogniser.base_of(adapter, self.base)
        version, is_new, notes = self._existing(adapter, planned.name), False, tuple[str, ...]()
        if version is None:
            pushed = push(self.registry, adapter, planned.name, base=recognised, progress=self.progress)
            version, is_new, notes = pushed.version, pushed.is_new, tuple(_warnings(pushed.report))
        elif recognised.info is not None and version.base_status != "verified":
            bound = self.registry.versions.bind_base(planned.name, version.digest, recognised.info.id)
            version = bound.version
        notes += self._add_evidence(planned, version)
        return VersionImport(planned, version, is_new, None, recognised, notes)

    def _add_evidence(self, planned: PlannedVersion, version: VersionInfo) -> tuple[str, ...]:
        """Adds the results files of its folders; returns why some could not be added."""
        paths: list[Path] = []
        links: list[str] = []
        for path in (path for folder in planned.result_folders for path in find_result_files(folder)):
            try:
                require_own_file(path)
                paths.append(path)
            except Invalid as error:
                links.append(f"not added as evidence: {error.message}")
        if not paths:
            return tuple(links)
        from adaptry.operations.evidence.folder_evidence import add_folder_evidence

        return (*links, *add_folder_evidence(self.registry, paths, version, self.progress).failures)

    def _existing(self, adapter: Adapter, name: AdapterName) -> VersionInfo | None:
        """A version of `name` with the same files, except for those that are not part of the adapter itself,
        such as a README.
        """
        if self.listed is None or self.listed[0] != name:
            self.listed = name, self._versions_by_weights(name)
        if not (by_weights := self.listed[1]):
            return None
        candidates = by_weights.get(adapter.weights_digest(), [])
        own: dict[str, Digest] = {}
        for version in candidates:
            own = own or {
                path: hash_file(adapter.content, path, self.progress)
                for path in adapter.content.sizes
                if defines_adapter(path)
            }
            manifest = self.registry.versions.detail(version.revision_ref).manifest
            if own == {entry.path: entry.sha256 for entry in manifest.files if defines_adapter(entry.path)}:
                return version
        return None

    def _versions_by_weights(self, name: AdapterName) -> dict[Digest, list[VersionInfo]]:
        found: dict[Digest, list[VersionInfo]] = {}
        try:
            for version in iter_items(lambda cursor: self.registry.versions.list(name, cursor, limit=200)):
                found.setdefault(version.weights, []).append(version)
        except NotFound:
            return {}
        return found


def _warnings(report: CheckReport) -> Iterator[str]:
    """The findings as sentences, without the one that the base is unknown: `list_bases` lists each such base
    once.
    """
    for finding in report.findings:
        if finding.severity != "notes" and finding.code != "base_unknown":
            yield f"{finding.severity}: {finding.reason} [{finding.code}]"
