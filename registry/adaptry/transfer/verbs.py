"""Moving adapters: `push` into a registry, `pull` out of one, `copy` between two.

Verbs over the waist, so they work between any two places. Every byte is verified against its digest where it
ends; an interruption goes on from where it stopped; memory does not grow with file size; and nothing is visible
before it is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from adaptry.adapter.content import Content, FolderContent
from adaptry.adapter.view import Adapter, open_dir
from adaptry.beside import Beside
from adaptry.cautions import require_usable
from adaptry.checks import check_weights
from adaptry.digest import Digest
from adaptry.errors import Conflict, NotFound, Refused
from adaptry.landing import landing
from adaptry.manifest import BaseClaim, FileEntry, Manifest
from adaptry.progress import Progress, no_progress
from adaptry.records import Pushed, PushOptions, VersionDetail, VersionInfo
from adaptry.refs import AdapterName, ByDigest, Ref, is_folder
from adaptry.registry import Registry
from adaptry.report import Report
from adaptry.settings import data_folder
from adaptry.transfer.downloading import download
from adaptry.transfer.remote import RevisionContent
from adaptry.transfer.retrying import PATIENT, Persistence
from adaptry.transfer.uploading import counted, upload

__all__ = ["copy", "open_revision", "pull", "push", "upload"]

_NO_OPTIONS = PushOptions()


def push(
    registry: Registry,
    adapter: Adapter,
    name: AdapterName | str,
    *,
    base: BaseClaim | None = None,
    options: PushOptions = _NO_OPTIONS,
    parents: tuple[Digest, ...] = (),
    recipe: dict[str, Any] | None = None,  # JSON whose shape belongs to `merging`
    provenance: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
    persistence: Persistence = PATIENT,
) -> Pushed:
    """Makes `adapter` a version of `name`; one that is there already is given back.

    Without `base`, the base named in the adapter's config is claimed. The weights are looked at here,
    since a server computes nothing: NaN or infinity is `Refused` before a byte moves, unless the options force, and
    factors that are all zero are among the report's findings. Raises what `Registry.put_revision` and `upload` raise; after an error, pushing again uploads only what is missing.
    """
    name = AdapterName.parse(name) if isinstance(name, str) else name
    seen = Report(findings=tuple(check_weights(adapter)))
    if seen.is_blocked and options.force_reason is None:
        raise Refused(seen.sentence())
    files = {
        path: (size, _digest(adapter.content, path, progress)) for path, size in adapter.content.sizes.items()
    }
    manifest = Manifest.of(
        files,
        base=base or _claim(adapter),
        parents=parents,
        recipe=recipe,
        provenance=provenance,
    )
    _upload_missing(registry, name, adapter.content, manifest, progress, persistence)
    pushed = registry.put_revision(name, manifest.to_bytes(), options)
    findings = (*pushed.report.findings, *seen.findings)
    return pushed.model_copy(update={"report": pushed.report.model_copy(update={"findings": findings})})


def pull(
    registry: Registry,
    ref: Ref | str,
    folder: Path | str,
    *,
    force: bool = False,
    even_withdrawn: bool = False,
    progress: Progress = no_progress,
    persistence: Persistence = PATIENT,
) -> VersionInfo:
    """Writes the adapter that `ref` means now into `folder`, which then holds its files and nothing else.

    A folder that holds these very files already is left as it is. Raises `Conflict` where something else is
    there (`force` replaces another adapter, never other files), `DigestMismatch`, `NotFound`, `StorageFull`, and
    `Withdrawn` for a version that is quarantined or revoked; `even_withdrawn` asks for one all the same.
    """
    detail = registry.detail(Ref.parse(ref) if isinstance(ref, str) else ref)
    if not even_withdrawn:
        require_usable(detail.version)
    target = Path(folder).expanduser()
    if _holds(target, detail.manifest, progress):
        return detail.version
    _fetch(registry, detail, target, force, progress, persistence)
    registry.count_download(_exact(detail.version))
    return detail.version


def copy(
    source: Registry,
    ref: Ref | str,
    destination: Registry,
    name: AdapterName | str,
    *,
    options: PushOptions = _NO_OPTIONS,
    progress: Progress = no_progress,
    persistence: Persistence = PATIENT,
) -> Pushed:
    """Makes a revision of one registry a version of `name` in another: the same manifest, so the same digest.

    Bytes stream from one to the other. Raises what reading the one and pushing to the other raise, and `Withdrawn`.
    """
    detail = source.detail(Ref.parse(ref) if isinstance(ref, str) else ref)
    require_usable(detail.version)
    name = AdapterName.parse(name) if isinstance(name, str) else name
    content = RevisionContent(source, detail.version, detail.manifest)
    _upload_missing(destination, name, content, detail.manifest, progress, persistence)
    return destination.put_revision(name, detail.manifest.to_bytes(), options)


def open_revision(
    registry: Registry,
    ref: Ref | str,
    cache: Path | None = None,
    *,
    progress: Progress = no_progress,
    persistence: Persistence = PATIENT,
) -> Adapter:
    """The adapter that `ref` means now, from verified local files kept by digest in `cache`.

    Unless `cache` is given it is in the user's data folder. Raises as `pull`.
    """
    detail = registry.detail(Ref.parse(ref) if isinstance(ref, str) else ref)
    require_usable(detail.version)
    folder = (cache or data_folder() / "cache" / "adapters") / detail.version.digest.hex
    if not folder.is_dir():
        try:
            _fetch(registry, detail, folder, False, progress, persistence)
        except Conflict:
            if not folder.is_dir():  # else someone else cached it meanwhile: the same files, verified
                raise
    return open_dir(folder)


def _claim(adapter: Adapter) -> BaseClaim | None:
    """The base by the name in the config; a folder on someone's machine names nothing to anybody else."""
    name = adapter.config.base_name
    if name is None or is_folder(name) or len(name) > 512:
        return None
    return BaseClaim(name=name)


def _digest(content: Content, path: str, progress: Progress) -> Digest:
    hasher = sha256()
    with Beside(hasher.update) as beside:
        for chunk in counted(content.chunks(path), f"hashing {path}", 0, content.sizes[path], progress):
            beside.update(memoryview(chunk))
    return Digest(hasher.hexdigest())


def _upload_missing(
    registry: Registry,
    name: AdapterName,
    content: Content,
    manifest: Manifest,
    progress: Progress,
    persistence: Persistence,
) -> None:
    for entry in manifest.files:
        if not _has(registry, name, entry.sha256):
            upload(registry, name, content, entry.path, entry.sha256, progress, persistence)


def _has(registry: Registry, name: AdapterName, digest: Digest) -> bool:
    """An adapter that cannot be seen has nothing; whether one may be made is for the upload to say."""
    try:
        return registry.has_file(name, digest)
    except NotFound:
        return False


def _fetch(
    registry: Registry,
    detail: VersionDetail,
    target: Path,
    force: bool,
    progress: Progress,
    persistence: Persistence,
) -> None:
    with landing(target, replace=force) as place:
        for entry in detail.manifest.files:
            path = place / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            download(_reader(registry, detail.version, entry), entry, path, progress, persistence)


def _reader(registry: Registry, version: VersionInfo, entry: FileEntry) -> Callable[[int], Iterator[bytes]]:
    return lambda start: registry.read_file(version.name, version.digest, entry.path, start)


def _holds(folder: Path, manifest: Manifest, progress: Progress) -> bool:
    """Whether `folder` has exactly the files of `manifest`; sizes are compared before anything is hashed."""
    if not folder.is_dir():
        return False
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()]
    if sorted(names) != [entry.path for entry in manifest.files]:
        return False
    content = FolderContent(folder, names)
    if any(content.sizes[entry.path] != entry.size for entry in manifest.files):
        return False
    return all(_digest(content, entry.path, progress) == entry.sha256 for entry in manifest.files)


def _exact(version: VersionInfo) -> Ref:
    return Ref(version.name, ByDigest(version.digest.hex))
