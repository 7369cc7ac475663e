"""Transfers adapters: `push` into a registry, `pull` out of one, `copy` between two.

Works with every implementation of `Registry`. The receiver verifies every byte against its digest; an
interrupted transfer resumes; memory does not grow with file size; and nothing is visible before it is
complete.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptry.adapters.content import FolderContent
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict, NotFound, PermissionDenied, Withdrawn
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.manifest import Manifest
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName, Ref
from adaptry.core.settings import data_folder
from adaptry.operations.transfer.file_upload import upload
from adaptry.operations.transfer.files import hash_file, store_or_hash
from adaptry.operations.transfer.retry import DEFAULT_RETRY, RetryPolicy
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions, PushResult, VersionInfo
from adaptry.registry.state_warnings import require_usable, withdrawn_error

if TYPE_CHECKING:
    from adaptry.adapters.adapter import Adapter
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.operations.base_recognition import BaseSource, RecognisedBase

__all__ = ["copy", "open_revision", "pull", "push", "upload"]

_NO_OPTIONS = PushOptions()
_LOG = logging.getLogger("adaptry.push")


def push(
    registry: Registry,
    adapter: Adapter,
    name: AdapterName | str,
    *,
    base: RecognisedBase | BaseSource | None = None,
    options: PushOptions = _NO_OPTIONS,
    parents: tuple[Digest, ...] = (),
    recipe: dict[str, Any] | None = None,  # JSON whose form `merging` defines
    provenance: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> PushResult:
    """Pushes `adapter` as a version of `name`. Pushing identical files returns the existing version.

    Without `base`, the base in the adapter's config is claimed (`recognise_base`), by content if it is a
    folder on this machine; a `base` with other weights than that folder raises `CheckFailed`, unless the
    options force the push. A base that is not registered is logged, since no engine loads the version until
    it is; if the base is in a folder here, the adapter is checked against that folder. Without parents,
    recipe and provenance, a version of `name` with the same files and base is returned, whatever its parents,
    recipe and provenance are. The registry inspects the weights: NaN or infinity raises `CheckFailed` unless
    the options force the push; for a remote registry this is checked before the upload (`inspect_early`).
    Raises the errors of `versions.put` and `upload`; after an error, pushing again uploads only what is
    missing.
    """
    # Imported here, since they import all methods and checks, which a pull does not need.
    from adaptry.operations.base_recognition import RecognisedBase, recognise_base, unserved_reason
    from adaptry.operations.transfer.early_inspection import inspect_early
    from adaptry.operations.transfer.revision_upload import send_revision

    name = AdapterName.parse(name) if isinstance(name, str) else name
    is_forced = options.force_reason is not None
    found = recognise_base(registry.bases, adapter, base, is_forced=is_forced)
    if found.record and found.needs_registering and not is_forced:
        _require_fit(adapter, found.record, f"the base in {found.folder}")
    with inspect_early(registry, adapter, is_one_request=True, is_forced=is_forced) as require_sound:

        def checked_progress(text: str, done: int, size: int) -> None:
            require_sound()
            progress(text, done, size)

        files = store_or_hash(registry, name, adapter.content, checked_progress, retry)
        manifest = Manifest.of(
            files.digests,
            base=found.claim,
            parents=parents,
            recipe=recipe,
            provenance=provenance,
        )
    if not (parents or recipe or provenance):
        options = options.model_copy(update={"reuse": True})
    pushed = send_revision(registry, name, adapter.content, manifest, options, progress, retry, files.stored)
    if found.is_of_config and any(one.code == "base_name_differs" for one in pushed.report.findings):
        pushed = _with_confirmed_base(registry, pushed, found)
    if not isinstance(base, RecognisedBase) and (reason := unserved_reason(pushed, found)):
        _LOG.warning("%s: %s", pushed.version.label, reason)
    return pushed


def _with_confirmed_base(registry: Registry, pushed: PushResult, found: RecognisedBase) -> PushResult:
    """Leaves out the finding that the config has another name for the base, if that name, such as
    `bases/llama`, is a folder here that has the base. The registry has only the name, so the version is bound
    to the base, unless the caller may not do so.
    """
    version = pushed.version
    try:
        assert found.info is not None  # the finding comes from a check against a registered base
        bound = registry.versions.bind_base(version.name, version.digest, found.info.id)
        return pushed.model_copy(update={"version": bound.version, "report": bound.report})
    except (CheckFailed, Conflict, NotFound, PermissionDenied):
        pass
    findings = tuple(one for one in pushed.report.findings if one.code != "base_name_differs")
    return pushed.model_copy(update={"report": pushed.report.model_copy(update={"findings": findings})})


def _require_fit(adapter: Adapter, base: BaseRecord, label: str) -> None:
    """Raises `CheckFailed` if the adapter cannot work on a base that the registry does not have."""
    from adaptry.checks import check

    report = check(adapter, base)
    if report.is_blocked:
        raise CheckFailed(f"{report.sentence()} (checked against {label})")


def pull(
    registry: Registry,
    ref: Ref | str,
    folder: Path | str,
    *,
    force: bool = False,
    include_withdrawn: bool = False,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> VersionInfo:
    """Writes the adapter that `ref` means now into `folder`, which then contains exactly its files.

    A folder that already has exactly these files stays unchanged. Raises `Conflict` if it contains anything
    else (`force` replaces another adapter, never other files), `DigestMismatch`, `NotFound`, `StorageFull`,
    and `Withdrawn` if the version is quarantined or revoked, unless `include_withdrawn`.
    """
    detail = registry.versions.detail(Ref.parse(ref) if isinstance(ref, str) else ref)
    if not include_withdrawn and detail.version.state in WITHDRAWN:
        refused = withdrawn_error(detail.version)
        raise Withdrawn(
            f"{refused.message}; they can get them with `adaptry pull {detail.version.label}"
            " --include-withdrawn`"
        )
    target = Path(folder).expanduser()
    if _holds(target, detail.manifest, progress):
        return detail.version
    from adaptry.operations.transfer.revision_download import fetch_version  # not needed by a push

    fetch_version(registry, detail.version, detail.manifest.files, target, force, progress, retry)
    return detail.version


def copy(
    source: Registry,
    ref: Ref | str,
    destination: Registry,
    name: AdapterName | str,
    *,
    options: PushOptions = _NO_OPTIONS,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> PushResult:
    """Copies a revision to another registry as a version of `name`, with the same manifest and digest.

    Files are streamed between the two. Raises the errors of reading from one and pushing to the other, and
    `Withdrawn`.
    """
    from adaptry.operations.transfer.revision_content import RevisionContent
    from adaptry.operations.transfer.revision_upload import send_revision

    detail = source.versions.detail(Ref.parse(ref) if isinstance(ref, str) else ref)
    require_usable(detail.version)
    name = AdapterName.parse(name) if isinstance(name, str) else name
    content = RevisionContent(source, detail.version, detail.manifest)
    return send_revision(destination, name, content, detail.manifest, options, progress, retry)


def open_revision(
    registry: Registry,
    ref: Ref | str,
    cache: Path | None = None,
    *,
    progress: Progress = no_progress,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> Adapter:
    """Opens the adapter that `ref` means now, from verified files that are cached by digest in `cache`.

    By default, `cache` is in the user's data folder. Raises the errors of `pull`.
    """
    from adaptry.adapters.adapter import open_dir
    from adaptry.operations.transfer.revision_download import fetch_revision

    detail = registry.versions.detail(Ref.parse(ref) if isinstance(ref, str) else ref)
    require_usable(detail.version)
    folder = (cache or data_folder() / "cache" / "adapters") / detail.version.digest.hex
    if not folder.is_dir():
        try:
            fetch_revision(
                registry.files,
                detail.version.name,
                detail.version.digest,
                detail.manifest.files,
                folder,
                False,
                progress,
                retry,
            )
        except Conflict:
            if not folder.is_dir():  # otherwise another process has cached the same verified files
                raise
    return open_dir(folder)


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
    return all(hash_file(content, entry.path, progress) == entry.sha256 for entry in manifest.files)
