"""Finds the base of an adapter if a caller names none, and only if it is certain: a matching name is not
enough.

It is certain for a version if the registry compared the two, or a folder here has the declared fingerprint.
An adapter in a folder has no recorded fingerprint; its base is the one that a push would claim: the
model in the folder that its config names, else the registered base with that name, whose fingerprint the
weights must have (docs/decisions/114).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.formats import PEFT
from adaptry.bases.hub_cache import hub_snapshot, hub_snapshots
from adaptry.core.digest import Digest
from adaptry.core.errors import (
    AdaptryError,
    CheckFailed,
    Conflict,
    Invalid,
    InvalidRef,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern
from adaptry.core.refs import folder_argument, is_folder, parse_base_name
from adaptry.operations.base_recognition import (
    find_config_folder,
    fingerprint_folder,
    folders_of_name,
)
from adaptry.operations.base_registry import folders_of
from adaptry.operations.sources import OpenedAdapter, ParentSource, RegistryOpener, Warn, open_input
from adaptry.registry.records import VersionInfo

if TYPE_CHECKING:
    from adaptry.registry.base_info import BaseInfo
    from adaptry.registry.bases import Bases


_PASS = "pass --base BASE, a folder or a registered base"
_ASKS_FOR_BASE = lazy_pattern(r"[:;] pass (?:the base with )?--base")


def ignore_note(sentence: str) -> None:
    """Ignores a note, for callers that show none."""


@dataclass(frozen=True, slots=True)
class KnownBase:
    """A base that is certain. `key` is a folder, or a registered name or id; its weights may be elsewhere.
    `reason` completes the sentence "base: KEY, …". `is_recorded`: the registry compared it with a version,
    and opens it by the version.
    """

    id: Digest
    key: str
    reason: str
    is_recorded: bool = False

    def sentence(self) -> str:
        return f"base: {self.key}, {self.reason}"

    @property
    def argument(self) -> str:
        """The key; or the id, if the name is also that of a file here, since callers would refuse the
        name.
        """
        return str(self.id) if not is_folder(self.key) and Path(self.key).exists() else self.key


def find_common_base(connected: RegistryOpener, sources: Sequence[ParentSource]) -> KnownBase:
    """The base of all adapters. Raises the errors of `find_known_base`, and `CheckFailed` if they differ."""
    found = [find_known_base(connected, source) for source in sources]
    first = found[0]
    for other in found[1:]:
        if other.id != first.id:
            raise CheckFailed(
                f"the adapters have different bases: {first.key} ({first.id.brief}), {first.reason}, and"
                f" {other.key} ({other.id.brief}), {other.reason}; pass the one to use: --base BASE"
            )
    return first


def find_known_base(connected: RegistryOpener, source: ParentSource) -> KnownBase:
    """The base of an adapter. Raises `NotFound`, with the places that were searched and a remedy, if it is
    not certain, and the errors of opening the adapter.
    """
    from adaptry.compute.foreign_layouts.gguf_reader import find_gguf

    if isinstance(source, Path) and (file := find_gguf(source.expanduser())) is not None:
        return _of_gguf(connected, file, folder_argument(source))
    opened = open_input(connected, source)
    if opened.version is not None:
        return _of_version(connected, opened, opened.version)
    label = folder_argument(source) if isinstance(source, Path) else opened.label
    return _of_folder(connected, opened.adapter, label)


@contextmanager
def base_or_known(
    connected: RegistryOpener, source: ParentSource, given: Path | str | None, note: Warn = ignore_note
) -> Iterator[Path | str | None]:
    """The `given` base, else the known one, which `note` receives as a sentence. None if the registry has it
    with the version, or if it is not certain; then an error in the block that asks for the base also states
    why the base is not known.
    """
    unknown = ""
    if given is None:
        try:
            known = find_known_base(connected, source)
            note(known.sentence())
            given = None if known.is_recorded else known.argument
        except (NotFound, Conflict) as error:
            unknown = error.message
    try:
        yield given
    except CheckFailed as error:
        asked = _ASKS_FOR_BASE.search(error.message) if unknown else None
        if asked is None:
            raise
        raise CheckFailed(f"{error.message[: asked.start()]}: {unknown}") from error


def _of_version(connected: RegistryOpener, opened: OpenedAdapter, version: VersionInfo) -> KnownBase:
    label, id = opened.label, version.base_id
    if id is not None and version.base_status == "verified":
        names = connected().bases.get(str(id)).names
        return KnownBase(id, names[0] if names else str(id), f"as recorded for {label}", is_recorded=True)
    name = version.base_name or opened.adapter.config.base_name
    if id is None:
        raise NotFound(_declared_by_name(connected().bases, label, name))
    places = (*folders_of(id), *(_named_folders(opened.adapter, name) if name else ()))
    for folder in places:
        if _id_in(folder) == id:
            return KnownBase(id, folder_argument(folder), f"a folder with the base that {label} declares")
    raise NotFound(
        f"{label} declares the base {id.brief}, which is not registered, and is not in"
        f" {_joined(places)}; pass its folder, --base DIR, or register it: `adaptry base add DIR`"
    )


def _declared_by_name(bases: Bases, label: str, name: str | None) -> str:
    if name is None:
        return f"{label} does not name its base; {_PASS}, or record it: `adaptry base bind {label} BASE`"
    if _registered(bases, name):
        return (
            f"{label} names the base {name!r} without having been compared with it; `adaptry base bind"
            f" {label} {name}` compares them and records it, or pass --base {name}"
        )
    try:
        remedy = f"or register it: `adaptry base add DIR --name {parse_base_name(name)}`"
    except InvalidRef:  # a path of another machine, for example
        remedy = f"or record a registered one: `adaptry base bind {label} BASE`"
    return f"{label} names the base {name!r}, which is not registered; {_PASS}, {remedy}{_hint_of_copy(name)}"


def _of_gguf(connected: RegistryOpener, file: Path, label: str) -> KnownBase:
    from adaptry.compute.foreign_layouts.gguf_reader import read_gguf

    name = read_gguf(file, label).base_name
    registered = _registered(connected().bases, name) if name else None
    if name is None or registered is None:
        named = f"names the base {name!r}, which is not registered" if name else "does not name its base"
        raise NotFound(f"{label} {named}; {_PASS}{_hint_of_copy(name)}")
    return KnownBase(registered.id, name, f"the registered base that {label} names")


def _of_folder(connected: RegistryOpener, adapter: Adapter, label: str) -> KnownBase:
    name = adapter.config.base_name
    if name is None:
        field = " (base_model_name_or_path in its config)" if adapter.format is PEFT else ""
        raise NotFound(f"{label} does not name its base{field}; {_PASS}")
    named_by = f"the config of {label}" if adapter.format.config else label
    fate = "is not a registered name"
    try:
        registered = None if is_folder(name) else _registered(connected().bases, name)
    except (NotFound, Unavailable, Unauthenticated, PermissionDenied) as error:
        registered, fate = None, f"could not be looked up in the registry ({error.message})"
    if registered is not None:
        return KnownBase(registered.id, name, f"the registered base that {named_by} names")
    try:
        config_folder = find_config_folder(adapter)
    except Conflict as error:
        raise Conflict(f"{label}: {error.message}") from None
    for place in (config_folder, hub_snapshot(name, adapter.config.fields.get("revision"))):
        if place is not None and (id := _id_in(place)):
            return KnownBase(id, _shown(place, name), f"the model that {named_by} names")
    places = folders_of_name(adapter, name)
    raise NotFound(
        f"{named_by} names the base {name!r}, which {fate}, and there is no complete model in"
        f" {_joined(places)}{_why_incomplete(places)}; {_PASS}{_hint_of_copy(name)}"
    )


def _shown(folder: Path, name: str) -> str:
    """The folder as its config names it, if it is relative to the working directory, else its path."""
    written = Path(name).expanduser()
    return folder_argument(written if written.absolute() == folder else folder.resolve())


def _registered(bases: Bases, name: str) -> BaseInfo | None:
    try:
        return bases.get(name)
    except (NotFound, Invalid):
        return None


def _id_in(folder: Path) -> Digest | None:
    """The fingerprint of the complete model in a folder; None if it has none."""
    try:
        return fingerprint_folder(folder).id
    except (AdaptryError, OSError, ValueError):
        return None


def _why_incomplete(folders: Iterable[Path]) -> str:
    """The reason why the first existing folder is incomplete, in parentheses; empty if no folder exists."""
    for folder in filter(Path.is_dir, folders):
        try:
            fingerprint_folder(folder)
        except AdaptryError as error:
            return f" ({error.message})"
        except (OSError, ValueError):
            continue
    return ""


def _named_folders(adapter: Adapter, name: str) -> tuple[Path, ...]:
    """The folders to which the name in a config may lead, if it is a path or a repository in the Hub's
    cache.
    """
    return (*folders_of_name(adapter, name), *hub_snapshots(name))


def _hint_of_copy(name: str | None) -> str:
    """The argument that selects a copy in the Hub's cache, for callers who know that it is the right one."""
    copies = hub_snapshots(name) if name else ()
    if not copies:
        return ""
    return (
        ". The Hub's cache has a model of that name, and only you can know whether it is the one of the"
        f" training: --base {shlex.quote(str(copies[0]))}"
    )


def _joined(places: Iterable[Path]) -> str:
    return ", ".join(map(str, places)) or "none is known"
