"""The bases of imported adapters: which of them are registered, and how to register the others."""

from __future__ import annotations

from collections.abc import Iterable

from adaptry.core.errors import InvalidRef, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import parse_base_name
from adaptry.operations.base_recognition import RecognisedBase, add_command
from adaptry.operations.folder_import.run import VersionImport
from adaptry.registry.bases import Bases

_BIND = "adaptry base add FOLDER --name NAME; then, for each adapter: adaptry base bind REF NAME --all"


@dataclass(frozen=True, slots=True)
class ImportedBase:
    """A base that adapters of the tree were trained on: its name, or the path in their configs; empty if they
    name none. `adapters` is the number of these adapters. `remedy` explains how to register it; empty if it
    is registered.
    """

    name: str
    adapters: int
    remedy: str = ""

    @property
    def is_registered(self) -> bool:
        return not self.remedy


def list_bases(bases: Bases, results: Iterable[VersionImport], namespace: str) -> tuple[ImportedBase, ...]:
    """The bases of the results, by name. Raises the errors of `Bases.get`, except `NotFound`."""
    remedies: dict[str, str] = {}
    counts: dict[tuple[str, str], int] = {}
    for result in results:
        if result.base is None:
            continue
        name, remedy = _describe(result.base, namespace)
        is_named = result.base.claim is not None and result.base.claim.name is not None
        if result.version is not None and result.version.base_status == "verified":
            name, remedy = result.version.base_name or name, ""
        elif remedy and is_named:
            if name not in remedies:
                remedies[name] = "" if _is_registered(bases, name) else remedy
            remedy = remedies[name]
        counts[name, remedy] = counts.get((name, remedy), 0) + 1
    return tuple(ImportedBase(name, count, remedy) for (name, remedy), count in sorted(counts.items()))


def _is_registered(bases: Bases, name: str) -> bool:
    try:
        bases.get(name)
    except NotFound:
        return False
    return True


def _describe(base: RecognisedBase, namespace: str) -> tuple[str, str]:
    """The label of a base in messages, and the command that registers it."""
    if base.info is not None:
        return (base.info.names[0] if base.info.names else base.info.id.brief), ""
    if base.folder is not None:
        return str(base.folder), add_command(base.folder, namespace)
    if base.claim is not None and base.claim.name is not None:
        name = base.claim.name
        try:
            parse_base_name(name)  # a config may contain any text, and the command is copied into a shell
        except InvalidRef:
            return name, _BIND
        return name, f"adaptry base add FOLDER --name {name}, or from a hub: adaptry base add hf:{name}"
    return base.written or (base.claim.id.brief if base.claim and base.claim.id else ""), _BIND
