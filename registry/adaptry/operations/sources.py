"""Adapters and bases as callers name them, opened: from a folder, or from the registry.

A registry is opened only if a name or a ref needs one; folders do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from adaptry.adapters.adapter import Adapter, open_content, open_dir
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.content import FolderContent
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import (
    Conflict,
    Invalid,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import Ref, is_folder, is_folder_path
from adaptry.operations.base_recognition import (
    BaseRecogniser,
    base_in_config_folder,
    fingerprint_folder,
)
from adaptry.operations.empty_adapter import explain_empty_adapter
from adaptry.operations.transfer import open_revision
from adaptry.operations.transfer.revision_content import RevisionContent
from adaptry.operations.verified_base import verified_base
from adaptry.registry.bases import base_record_or_none
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.state_warnings import state_warning

if TYPE_CHECKING:
    from adaptry.core.report import CheckReport

RegistryOpener: TypeAlias = Callable[[], Registry]
"""Opens the registry when it is called, for an operation that may need none."""
ParentSource: TypeAlias = Adapter | Ref | Path
"""An adapter: open, in a registry, or in a folder."""
Warn: TypeAlias = Callable[[str], None]
"""Shows an informative sentence to the caller."""


@dataclass(frozen=True, slots=True)
class OpenedAdapter:
    """An adapter and its label; if the registry has it, its version and the version's report."""

    adapter: Adapter
    label: str
    version: VersionInfo | None = None
    report: CheckReport | None = None


@dataclass(frozen=True, slots=True)
class BaseToCheck:
    """A base to check against: its label, its record if there is one, and its name if it has one."""

    label: str
    record: BaseRecord | None
    name: str | None = None
    names: tuple[str, ...] = ()


def source_label(source: ParentSource) -> str:
    """The label of an adapter without a version: its folder, or its ref."""
    if not isinstance(source, Adapter):
        return str(source)
    return str(source.content.folder) if isinstance(source.content, FolderContent) else "an open adapter"


def open_input(connected: RegistryOpener, source: ParentSource) -> OpenedAdapter:
    """Opens an adapter for inspection: reads headers, and no weights. Raises `NotFound`, `Invalid…`."""
    if isinstance(source, Adapter):
        return OpenedAdapter(source, source_label(source))
    if isinstance(source, Path):
        return OpenedAdapter(open_dir(source), str(source))
    registry = connected()
    with explain_empty_adapter(registry.adapters, source):
        detail = registry.versions.detail(source)
    adapter = open_content(RevisionContent(registry, detail.version, detail.manifest))
    return OpenedAdapter(adapter, detail.version.label, detail.version, detail.report)


def open_parent(
    connected: RegistryOpener,
    source: ParentSource,
    *,
    label: str | None = None,
    gguf_base: Callable[[], BaseRecord | None] | None = None,
    warn: Warn,
    progress: Progress = no_progress,
) -> ParentAdapter:
    """Opens an adapter for computing, with its weights on this machine. Warns if the version is not active.

    `label` is the name of a folder in messages (by default its path). `gguf_base` is the base of a GGUF file,
    which its names require; without it, GGUF files are not considered. Raises `NotFound`, `Withdrawn`,
    `Invalid…`.
    """
    if isinstance(source, Adapter):
        return ParentAdapter(source, label or source_label(source))
    if isinstance(source, Path):
        label = label or str(source)
        gguf = open_gguf(source, gguf_base, label) if gguf_base else None
        return gguf or ParentAdapter(open_dir(source), label)
    registry = connected()
    version = registry.versions.get(source)
    if warning := state_warning(version):
        warn(warning)
    adapter = open_revision(registry, version.revision_ref, progress=progress)
    base = verified_base(registry, version)
    return ParentAdapter(adapter, version.label, version.digest, base, base_name=version.base_name)


def with_configured_base(parent: ParentAdapter, given: Path | str | None) -> ParentAdapter:
    """Returns `parent` with the base to which the path in its config leads, if a caller gives a base and the
    adapter's own base is unknown. Models of one family have equal shapes, so only a comparison shows that the
    given base is a different one. A path in the config of a version belongs to the machine that pushed it,
    and is not looked up here.
    """
    if given is None or parent.base is not None or parent.revision is not None:
        return parent
    return replace(parent, base=base_in_config_folder(parent.adapter, given))


def open_gguf(
    path: Path, base: Callable[[], BaseRecord | None], label: str | None = None
) -> ParentAdapter | None:
    """The GGUF LoRA at `path`, or in that folder, in PEFT's layout, or None. Raises the errors of
    `open_gguf_as_peft`.
    """
    from adaptry.compute.foreign_layouts.gguf_lora import open_gguf_as_peft
    from adaptry.compute.foreign_layouts.gguf_reader import find_gguf

    if (file := find_gguf(path.expanduser())) is None:
        return None
    known = base()
    label = label or str(path)
    return ParentAdapter(open_gguf_as_peft(file, str(path), known), label, base=known)


def find_base(connected: RegistryOpener, source: Path | str) -> BaseToCheck:
    """A base by folder, name or id. Raises `NotFound`, `Invalid`."""
    if isinstance(source, Path) or is_folder_path(source, of_base=True):
        return BaseToCheck(str(source), fingerprint_folder(Path(source)))
    info = connected().bases.get(source)
    name = info.names[0] if info.names else None
    return BaseToCheck(name or info.id.brief, connected().bases.record(info.id), name, info.names)


def configured_base(connected: RegistryOpener, adapter: Adapter, warn: Warn) -> BaseToCheck | None:
    """The base that an adapter's config names: a registered base, or a base in a folder on this machine; None
    if there is neither, or no registry.
    """
    name = adapter.config.base_name
    if name is None:
        return None
    try:
        bases = connected().bases
        found = BaseRecogniser(bases).trained_on(adapter)
        if found.needs_registering and found.folder is not None:
            return BaseToCheck(str(found.folder), fingerprint_folder(found.folder))
        if found.info is None and is_folder(name):
            return None
        info = found.info or bases.get(name)
        title = name if name in info.names else next(iter(info.names), info.id.brief)
        return BaseToCheck(title, bases.record(info.id), title, (*info.names, name))
    except (Invalid, NotFound, Conflict):
        return None
    except (Unavailable, Unauthenticated, PermissionDenied) as error:
        warn(f"could not look up the base {name[:120]!a} in the registry: {error.message}")
        return None


def version_base(connected: RegistryOpener, version: VersionInfo) -> BaseToCheck:
    """The base of a version, as determined when the version was pushed or its base was registered."""
    record = base_record_or_none(connected().bases, version)
    names = connected().bases.get(str(record.id)).names if record else ()
    known = names[0] if names else version.base_id.brief if version.base_id else "no base"
    return BaseToCheck(version.base_name or known, record, version.base_name, names)
