"""Adapters and bases as a call names them, opened: from a folder, or from the registry.

A registry is connected to only where a name or a ref needs one; folders do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adaptry.adapters.adapter import Adapter, open_content, open_dir
from adaptry.adapters.base_record import BaseRecord
from adaptry.core.errors import (
    Conflict,
    Invalid,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from adaptry.core.refs import AdapterName, Latest, Ref, is_folder
from adaptry.operations.transfer.revision_content import RevisionContent
from adaptry.registry.adapters import Adapters
from adaptry.registry.bases import base_record_or_none as record_of_base
from adaptry.registry.records import VersionInfo
from adaptry_cli.arguments import Source, is_folder_path
from adaptry_cli.connection import RegistryOpener
from adaptry_cli.out import print_err


@dataclass(frozen=True, slots=True)
class OpenedAdapter:
    """An adapter, what to call it, and its version if it is one of the registry's."""

    adapter: Adapter
    label: str
    version: VersionInfo | None = None


@dataclass(frozen=True, slots=True)
class BaseToCheck:
    """A base to check against: what to call it, its record if there is one, its name if it has one."""

    label: str
    record: BaseRecord | None
    name: str | None = None
    names: tuple[str, ...] = ()


def open_input(connected: RegistryOpener, source: Source) -> OpenedAdapter:
    """An adapter to look at: headers are read, weights stay where they are. Raises `NotFound`, `Invalid…`."""
    if isinstance(source, Path):
        return OpenedAdapter(open_dir(source), str(source))
    registry = connected()
    with explain_empty_adapter(registry.adapters, source):
        detail = registry.versions.detail(source)
    adapter = open_content(RevisionContent(registry, detail.version, detail.manifest))
    return OpenedAdapter(adapter, detail.version.label, detail.version)


def find_base(connected: RegistryOpener, text: str) -> BaseToCheck:
    """A base by folder, name or id. Raises `NotFound`, `Invalid`."""
    if is_folder_path(text):
        return BaseToCheck(text, fingerprint_of(Path(text)))
    info = connected().bases.get(text)
    name = info.names[0] if info.names else None
    return BaseToCheck(name or info.id.brief, connected().bases.record(info.id), name, info.names)


def configured_base(connected: RegistryOpener, adapter: Adapter) -> BaseToCheck | None:
    """The registered base that an adapter's config names; None where there is none, or no registry."""
    name = adapter.config.base_name
    if name is None or is_folder(name):
        return None
    try:
        info = connected().bases.get(name)
        return BaseToCheck(name, connected().bases.record(info.id), name, info.names)
    except (Invalid, NotFound, Conflict):
        return None
    except (Unavailable, Unauthenticated, PermissionDenied) as error:
        print_err(f"the registry could not be asked for the base {name[:120]!a}: {error.message}")
        return None


def base_parameters(connected: RegistryOpener, opened: OpenedAdapter) -> int | None:
    """How large the adapter's base is: the version's, else the one its config names; None if unknown."""
    known = opened.version.base_id if opened.version else None
    key = str(known) if known else opened.adapter.config.base_name
    try:
        return connected().bases.get(key).parameters if key else None
    except (
        Conflict,
        Invalid,
        NotFound,
        Unavailable,
    ):  # a name is a hint: the adapter can be looked at anyway
        return None


def version_base(connected: RegistryOpener, version: VersionInfo) -> BaseToCheck:
    """The base a version is for, as the registry found out when it was pushed or its base registered."""
    label = version.base_name or (version.base_id.brief if version.base_id else "no base")
    record = record_of_base(connected().bases, version)
    names = connected().bases.get(str(record.id)).names if record else ()
    return BaseToCheck(label, record, version.base_name, names)


def fingerprint_of(folder: Path) -> BaseRecord:
    """Raises as `open_base_folder` and `fingerprint`."""
    from adaptry.bases.diffusers_pipeline import open_base_folder
    from adaptry.bases.fingerprinting import fingerprint

    return fingerprint(open_base_folder(folder))


@contextmanager
def explain_empty_adapter(adapters: Adapters, ref: Ref) -> Iterator[None]:
    """Where the latest version of an adapter without versions is asked for, says that."""
    try:
        yield
    except NotFound:
        if isinstance(ref.selector, Latest) and adapters.get(ref.name).versions == 0:
            raise NotFound(no_version_message(ref.name)) from None
        raise


def no_version_message(name: AdapterName) -> str:
    return f"{name} has no version yet; `adaptry push DIR {name}` puts one in"
