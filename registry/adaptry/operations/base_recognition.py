"""Determines the base that a push claims: the base that the caller names, else the base in the adapter's
config.

The base is claimed by content if its weights are on this machine or the registry knows it, else by name. A
claim by content has only the id: names of bases change, and the same folder must stay the same revision. A
claim never contains a path, which has no meaning on another machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.adapters.content import FolderContent
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, CheckFailed, Conflict, Invalid, InvalidRef, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import BaseClaim
from adaptry.core.refs import Ref, folder_argument, is_folder, parse_base_name

if TYPE_CHECKING:
    from adaptry.adapters.adapter import Adapter
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.registry.base_info import BaseInfo
    from adaptry.registry.bases import Bases
    from adaptry.registry.records import PushResult, VersionDetail
    from adaptry.registry.versions import Versions

BaseSource = BaseClaim | Path | str
"""A caller's base: a claim, a folder, or a name or id in the registry."""

_MAX_NAME = 512


@dataclass(frozen=True, slots=True)
class RecognisedBase:
    """A base to claim. `folder` has its weights on this machine, if they were read, and `record` is what was
    read. `info` is the registered base, if it is registered. `written` is the name or path in the adapter's
    config.
    """

    claim: BaseClaim | None
    folder: Path | None = None
    record: BaseRecord | None = None
    info: BaseInfo | None = None
    written: str | None = None

    @property
    def needs_registering(self) -> bool:
        """Whether the base was found on this machine and the registry does not know it."""
        return self.folder is not None and self.info is None

    @property
    def is_of_config(self) -> bool:
        """Whether the base was found in the folder that the adapter's config names."""
        return self.folder is not None and self.written is not None

    def sentence(self, namespace: str) -> str | None:
        """The base in the folder, or the command that registers it visibly for the adapter's `namespace`;
        None if no folder was found.
        """
        if self.folder is None:
            return None
        if self.info is not None:
            return f"the base in {self.folder} is {_name(self.info)}"
        return (
            f"the base in {self.folder} is not registered, or you may not see it; engines need it to load the"
            f" adapter. Administrators register it: `{add_command(self.folder, namespace)}`"
        )


@dataclass(slots=True)
class BaseRecogniser:
    """Recognises bases by content. A folder is read only once, at the start of a training run, so later
    changes to the folder do not matter.
    """

    bases: Bases
    _records: dict[Path, BaseRecord] = field(default_factory=dict)

    def named(self, source: BaseSource) -> RecognisedBase:
        """The base that a caller names. Raises `NotFound`, `Invalid`, `Conflict`, and for a folder what
        `fingerprint_folder` raises.
        """
        if isinstance(source, BaseClaim):
            return RecognisedBase(source)
        if isinstance(source, Path) or is_folder(source):
            folder = Path(source).expanduser()
            return self._by_content(_record_in(folder.absolute(), self._records), folder, None)
        info = _known(self.bases, source)
        return RecognisedBase(BaseClaim(id=info.id) if info else _unknown_claim(source), info=info)

    def trained_on(self, adapter: Adapter, near: Iterable[Path] = ()) -> RecognisedBase:
        """The base in the adapter's config, by content if it is a checkpoint on this machine.

        A relative path is resolved from the working directory, then from the adapter's folder and the folders
        `near`. A name that the registry knows is treated as a name, even if a folder has it too. Raises
        `Conflict` if a path leads to several bases.
        """
        declared = declared_base(adapter)
        if declared.written is None:
            return declared
        found = _checkpoints(declared.written, (*_folder_of(adapter), *near), self._records)
        if not found or (declared.claim and _known(self.bases, declared.written)):
            return declared
        folder, record = _only_model(found, declared.written)
        return self._by_content(record, folder, declared.written)

    def base_of(
        self, adapter: Adapter, given: BaseSource | None = None, *, is_forced: bool = False
    ) -> RecognisedBase:
        """The base to claim for an adapter from this machine: the given base, else the base in its config.

        Raises what `named` and `trained_on` raise; `CheckFailed` if the config leads to a folder on this
        machine with a different model than the given one, unless `is_forced`.
        """
        if given is None:
            return self.trained_on(adapter)
        found = self.named(given)
        own = None if is_forced else self._base_of_config(adapter, found)
        if own and own.record and found.info and found.info.id == own.record.id:
            return replace(found, folder=found.folder or own.folder, written=own.written)
        return found

    def _base_of_config(self, adapter: Adapter, given: RecognisedBase) -> RecognisedBase | None:
        """The base in the folder that the config names; None if the path leads to no base or to several.
        Raises `CheckFailed` if it is a different model than the given one: nothing else shows this mistake,
        since models of one family have equal shapes. A config with the name of another registered base is a
        finding (`base_name_differs`).
        """
        from adaptry.bases.fingerprinting.match import match_bases

        try:
            own = self.trained_on(adapter)
        except Conflict:  # its path leads to several bases, so the caller must name one
            return None
        base = self._record_of(given) if own.folder else None
        if own.record is None or base is None:
            return None
        match = match_bases(own.record, base)
        if not match.is_same_model:
            label = _name(given.info) if given.info else str(given.folder or base.id.brief)
            raise CheckFailed(
                f"its config names the base in {own.folder}, and {label} is another model: {match.evidence}."
                " Push it with the base that it was trained on; if the config is wrong, correct"
                " base_model_name_or_path in adapter_config.json"
            )
        return own

    def _record_of(self, base: RecognisedBase) -> BaseRecord | None:
        """The record of a recognised base; None if the registry does not have it."""
        known = base.info or base.claim
        if base.record or known is None or known.id is None:
            return base.record
        try:
            return self.bases.record(known.id)
        except NotFound:
            return None

    def find_folder(self, written: str | None) -> Path | None:
        """The checkpoint at a path, resolved from the current working directory."""
        return next(iter(_checkpoints(written, (), self._records)), None) if written else None

    def _by_content(self, record: BaseRecord, folder: Path, written: str | None) -> RecognisedBase:
        known = _known(self.bases, str(record.id))
        return RecognisedBase(BaseClaim(id=record.id), folder, record, known, written)


def recognise_base(
    bases: Bases, adapter: Adapter, base: RecognisedBase | BaseSource | None, *, is_forced: bool = False
) -> RecognisedBase:
    """The base to claim for `adapter`: a base that was already recognised, or the result of
    `BaseRecogniser.base_of`.
    """
    if isinstance(base, RecognisedBase):
        return base
    return BaseRecogniser(bases).base_of(adapter, base, is_forced=is_forced)


def declared_base(adapter: Adapter) -> RecognisedBase:
    """The base by the name in the config only, for adapters from other machines, whose paths must not be
    resolved here.
    """
    written = adapter.config.base_name
    is_name = written is not None and not is_folder(written) and len(written) <= _MAX_NAME
    return RecognisedBase(BaseClaim(name=written) if is_name else None, written=written)


def base_in_config_folder(adapter: Adapter, given: Path | str) -> BaseRecord | None:
    """The base in the local folder that the config of an adapter in a folder names, for comparison with the
    `given` base. None if there is no such folder, if its base is the given one, or if the path leads to
    several.
    """
    written = adapter.config.base_name
    if written is None or not _folder_of(adapter):
        return None
    near = _folder_of(adapter)
    if is_folder(str(given)) and any(
        _is_same_folder(place, Path(given)) for place in _candidate_folders(written, near)
    ):
        return None  # nothing to compare, so the folder is not read twice
    found = _checkpoints(written, near, {})
    is_one = len({record.id for record in found.values()}) == 1
    return next(iter(found.values())) if is_one else None


def find_config_folder(adapter: Adapter) -> Path | None:
    """The folder with the model that the config of an adapter in a folder names, if it exists. Raises
    `Conflict` if there are several models.
    """
    written, near = adapter.config.base_name, _folder_of(adapter)
    found = _checkpoints(written, near, {}) if written and near else {}
    return _only_model(found, written)[0] if written and found else None


def folders_of_name(adapter: Adapter, name: str) -> tuple[Path, ...]:
    """The folders that the name of a base in an adapter's config may mean, whether or not they exist."""
    return tuple(_candidate_folders(name, _folder_of(adapter)))


def _is_same_folder(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other.expanduser())
    except (OSError, ValueError, RuntimeError):  # missing, not a valid path, or `~` of an unknown user
        return False


def unserved_reason(pushed: PushResult, base: RecognisedBase) -> str | None:
    """Why engines do not load a pushed version, with the remedy; None if its base is known."""
    version = pushed.version
    if version.base_status == "verified":
        return None
    if base.needs_registering:
        return base.sentence(version.name.namespace)
    unknown = (finding for finding in pushed.report.findings if finding.code == "base_unknown")
    return next((f"{finding.reason} → {finding.remedy_for(version.label)}" for finding in unknown), None)


def bind_versions(versions: Versions, ref: Ref, base: Digest, *, each: bool = False) -> list[VersionDetail]:
    """Binds the version `ref` to a registered base; with `each`, all versions of the adapter that declare the
    same base and are not bound yet. Raises the errors of `Versions.bind_base`.
    """
    first = versions.get(ref)
    chosen = [first]
    if each:
        from adaptry.registry.pagination import iter_items

        every = iter_items(lambda cursor: versions.list(ref.name, cursor, limit=200))
        chosen += [
            version
            for version in every
            if version.digest != first.digest
            and version.base_status != "verified"
            and (version.base_id, version.base_name) == (first.base_id, first.base_name)
        ]
    return [versions.bind_base(version.name, version.digest, base) for version in chosen]


def fingerprint_folder(folder: Path) -> BaseRecord:
    """The record of the base in a folder. Raises what `open_base_folder` and `fingerprint` raise."""
    from adaptry.bases.diffusers_pipeline import open_base_folder
    from adaptry.bases.fingerprinting import fingerprint

    return fingerprint(open_base_folder(folder))


def add_command(folder: Path, namespace: str) -> str:
    """The command that registers the base in a folder so that holders of `namespace` can see it."""
    import shlex  # for this message only

    return (
        f"adaptry base add {shlex.quote(folder_argument(folder))} --name {_suggested_name(folder, namespace)}"
    )


def _suggested_name(folder: Path, namespace: str) -> str:
    name = f"{namespace}/{folder.resolve().name}"
    try:
        return parse_base_name(name)
    except InvalidRef:
        return f"{namespace}/base-model"


def _folder_of(adapter: Adapter) -> tuple[Path, ...]:
    content = adapter.content
    return (content.folder, content.folder.parent) if isinstance(content, FolderContent) else ()


def _checkpoints(
    written: str, near: Iterable[Path], records: dict[Path, BaseRecord]
) -> dict[Path, BaseRecord]:
    """Each possible folder for the path that has a complete checkpoint, with its record; `records` are those
    that were read before.
    """
    found: dict[Path, BaseRecord] = {}
    for place in _candidate_folders(written, near):
        try:
            if place in records or place.is_dir():
                found[place] = _record_in(place, records)
        except (AdaptryError, OSError, ValueError):
            continue  # no complete checkpoint, perhaps not yet
    return found


def _only_model(found: Mapping[Path, BaseRecord], written: str) -> tuple[Path, BaseRecord]:
    """The first folder. Raises `Conflict` if another folder has a different model."""
    if len({record.id for record in found.values()}) > 1:
        raise Conflict(
            f"its config names the base {written!r}, but these folders have different bases:"
            f" {', '.join(map(str, found))}; pass the one that it was trained on (--base DIR)"
        )
    return next(iter(found.items()))


def _record_in(folder: Path, records: dict[Path, BaseRecord]) -> BaseRecord:
    """The record of the base in a folder. Raises the errors of `fingerprint_folder`."""
    if folder not in records:
        records[folder] = fingerprint_folder(folder)
    return records[folder]


def _candidate_folders(written: str, near: Iterable[Path]) -> Iterator[Path]:
    """The folders that `written` may mean: from the working directory, or from a folder nearby."""
    try:
        named = Path(written).expanduser()
    except RuntimeError:  # ~user without an account on this machine
        return
    places = (named, *(folder / named for folder in near))
    yield from dict.fromkeys(Path(place).absolute() for place in places)


def _unknown_claim(text: str) -> BaseClaim:
    if not text.startswith("sha256:"):
        return BaseClaim(name=parse_base_name(text))
    try:
        return BaseClaim(id=Digest.parse(text))
    except Invalid as error:
        raise Invalid(
            f"no registered base has an id that begins with {text}, and it is not a complete id:"
            f" {error.message}"
        ) from None


def _known(bases: Bases, key: str) -> BaseInfo | None:
    try:
        return bases.get(key)
    except NotFound:
        return None


def _name(info: BaseInfo) -> str:
    return info.names[0] if info.names else info.id.brief
