"""Adapters and bases as a call names them, opened: from a folder, or from the registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adaptry.adapter.view import Adapter, open_content, open_dir
from adaptry.digest import Digest
from adaptry.errors import Conflict, Invalid, NotFound
from adaptry.fingerprint import BaseRecord
from adaptry.manifest import BaseClaim
from adaptry.records import VersionInfo
from adaptry.registry import Registry
from adaptry.transfer.remote import RevisionContent
from adaptry_cli.arguments import Source, means_folder


@dataclass(frozen=True, slots=True)
class Opened:
    """An adapter, what to call it, and its version if it is one of the registry's."""

    adapter: Adapter
    label: str
    version: VersionInfo | None = None


def look_into(registry: Registry, source: Source) -> Opened:
    """An adapter to look at: headers are read, weights stay where they are. Raises `NotFound`, `Invalid…`."""
    if isinstance(source, Path):
        return Opened(open_dir(source), str(source))
    detail = registry.detail(source)
    adapter = open_content(RevisionContent(registry, detail.version, detail.manifest))
    return Opened(adapter, f"{detail.version.name}@{detail.version.number}", detail.version)


def base_record(registry: Registry, text: str) -> tuple[BaseRecord, str]:
    """A base by folder, name or id, and what to call it. Raises `NotFound`."""
    if means_folder(text):
        record = _fingerprint(text)
        return record, _known_name(registry, record) or text
    info = registry.base(text)
    return registry.base_record(info.id), info.names[0] if info.names else info.id.brief


def base_parameters(registry: Registry, opened: Opened) -> int | None:
    """How large the adapter's base is: the version's, else the one its config names; None where it is not known."""
    known = opened.version.base_id if opened.version else None
    key = str(known) if known else opened.adapter.config.base_name
    try:
        return registry.base(key).parameters if key else None
    except (Conflict, Invalid, NotFound):  # a name is a hint: whatever it is, the adapter can be looked at
        return None


def base_claim(registry: Registry, text: str) -> BaseClaim:
    """What a push says of its base: by content where the base is at hand or known, else by name only."""
    if means_folder(text):
        record = _fingerprint(text)
        return BaseClaim(id=record.id, name=_known_name(registry, record))
    try:
        info = registry.base(text)
    except NotFound:
        return _unknown_claim(text)
    return BaseClaim(id=info.id, name=info.names[0] if info.names else None)


def _unknown_claim(text: str) -> BaseClaim:
    if not text.startswith("sha256:"):
        return BaseClaim(name=text[:512])
    try:
        return BaseClaim(id=Digest.parse(text))
    except Invalid as error:
        raise Invalid(
            f"no known base begins with {text}, and it is not a whole id: {error.message}"
        ) from None


def _fingerprint(folder: str) -> BaseRecord:
    from adaptry.checkpoint import open_checkpoint
    from adaptry.fingerprinting import fingerprint

    return fingerprint(open_checkpoint(folder))


def _known_name(registry: Registry, record: BaseRecord) -> str | None:
    try:
        names = registry.base(str(record.id)).names
    except NotFound:
        return None
    return names[0] if names else None
