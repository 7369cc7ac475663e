"""Creates a bundle: streams versions, and everything they need, from a registry into one file, atomically.

Bundles are reproducible: the same versions with the same metadata give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import field
from functools import partial
from pathlib import Path

from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, NotFound, TooLarge
from adaptry.core.files.atomic_file import atomic_file
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import FileEntry
from adaptry.core.progress import Progress, no_progress
from adaptry.operations.mirror.bundles.archive import write_bundle
from adaptry.operations.mirror.bundles.index import LIMITS, BundledBase, BundleEntry, BundleIndex
from adaptry.operations.mirror.snapshot import VersionSnapshot, take_snapshot
from adaptry.operations.transfer.file_download import ReadFrom, read_resumable
from adaptry.operations.transfer.retry import DEFAULT_RETRY, RetryPolicy
from adaptry.registry.bases import Bases
from adaptry.registry.files import Files
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.state_warnings import require_usable


def create_bundle(
    registry: Registry,
    versions: Iterable[VersionInfo],
    file: Path,
    *,
    with_bases: bool = False,
    replace: bool = False,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> BundleIndex:
    """Bundles the versions with the records of their bases; with `with_bases` also the bases' weights.

    Raises `Withdrawn`, `NotFound` if a base's weights are wanted but not stored, `Conflict` if `file` exists
    (unless `replace`), `TooLarge`, and the registry's errors; then no file is written.
    """
    if not replace and file.exists():
        raise Conflict(f"{file} exists; choose another name, or replace it with --force")
    packed = _gather(registry, versions, with_bases)
    index = packed.index()
    if len(index.to_bytes()) > LIMITS.size:
        raise TooLarge(f"{len(index.parcels):,} versions are too many for one bundle; create several")

    def read(entry: BundleEntry) -> Iterable[bytes]:
        if entry.kind != "file":
            return [packed.documents[entry.digest]]
        named = FileEntry(path=entry.name, size=entry.size, sha256=entry.digest)
        return read_resumable(packed.readers[entry.digest], named, progress, retry)

    with atomic_file(file) as out:
        write_bundle(out, index, read)
    return index


@dataclass
class _BundleContents:
    """The contents: snapshots and bases, their documents, and a reader for each file."""

    snapshots: dict[tuple[str, int], VersionSnapshot] = field(default_factory=dict)
    bases: dict[Digest, BundledBase] = field(default_factory=dict)
    documents: dict[Digest, bytes] = field(default_factory=dict)
    sizes: dict[Digest, int] = field(default_factory=dict)
    readers: dict[Digest, ReadFrom] = field(default_factory=dict)

    def index(self) -> BundleIndex:
        manifests = {snapshot.digest for snapshot in self.snapshots.values()}
        entries = [
            BundleEntry(kind="manifest" if digest in manifests else "base", digest=digest, size=len(data))
            for digest, data in self.documents.items()
        ]
        entries += [BundleEntry(kind="file", digest=digest, size=size) for digest, size in self.sizes.items()]
        return BundleIndex(
            parcels=tuple(self.snapshots[key] for key in sorted(self.snapshots)),
            bases=tuple(self.bases[id] for id in sorted(self.bases)),
            entries=tuple(sorted(entries, key=lambda entry: entry.sort_key)),
        )

    def add_files(self, files: Iterable[FileEntry], reader: Callable[[str], ReadFrom]) -> None:
        for entry in files:
            self.sizes[entry.sha256] = entry.size
            self.readers[entry.sha256] = reader(entry.path)


def _gather(registry: Registry, versions: Iterable[VersionInfo], with_bases: bool) -> _BundleContents:
    packed = _BundleContents()
    for version in versions:
        require_usable(version)
        snapshot, manifest = take_snapshot(registry, version)
        packed.snapshots[str(snapshot.name), snapshot.number] = snapshot
        packed.documents[snapshot.digest] = manifest.to_bytes()
        packed.add_files(manifest.files, partial(_file_of, registry.files, version))
        if snapshot.base_id is not None and snapshot.base_id not in packed.bases:
            _add_base(registry.bases, snapshot.base_id, packed, with_bases)
    if not packed.snapshots:
        raise NotFound("nothing to bundle: no version was found")
    return packed


def _file_of(files: Files, version: VersionInfo, path: str) -> ReadFrom:
    return partial(files.read, version.name, version.digest, path)


def _add_base(bases: Bases, id: Digest, packed: _BundleContents, with_weights: bool) -> None:
    info, record = bases.get(str(id)), bases.record(id)
    if with_weights and not info.is_stored:
        raise NotFound(
            f"the weights of {next(iter(info.names), id.brief)} are not in the registry, so they cannot be"
            " included; store them with `adaptry base add FOLDER --store`"
        )
    data = strictjson.canonical(record.model_dump(mode="json"))
    files = info.stored if with_weights else ()
    packed.documents[Digest.of(data)] = data
    packed.bases[id] = BundledBase(id=id, record=Digest.of(data), names=info.names[:16], files=files)
    packed.add_files(files, lambda path: partial(bases.read_file, id, path))
