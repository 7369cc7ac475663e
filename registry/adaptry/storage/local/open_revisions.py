"""Decides who may read which files of one or several revisions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, FileMissing, Invalid, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lifecycle import may_read_files
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.registry.files import FileReader
from adaptry.registry.state_warnings import withdrawn_error
from adaptry.storage.catalog import adapters, commits, damage, states
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.local.context import RegistryContext, damaged_error, no_revision

if TYPE_CHECKING:
    from adaptry.registry.records import VersionInfo


@dataclass(frozen=True, slots=True)
class OpenRevision:
    """A revision that the caller may see; `held`: the withheld version that has the same weights; `damaged`:
    the reasons, by file, for files that are known to be damaged.
    """

    context: RegistryContext
    name: AdapterName
    revision: Digest
    tree: Manifest
    held: VersionInfo | None
    damaged: Mapping[Digest, str]

    def read(self, path: str, start: int = 0) -> Iterator[bytes]:
        """Implements `Files.read`."""
        file = self.tree.file(path)
        if file is None:
            raise FileMissing(f"no file {path[:80]!a} in {self.name}@{self.revision.brief}")
        held = self.held
        if held and not may_read_files(self.context.identity, self.name, held.state, self.context.clock()):
            raise withdrawn_error(held)
        check_start(start, file.size, path)
        what = f"{path} of {self.name}@{self.revision.brief}"
        if file.sha256 in self.damaged:
            raise damaged_error(what, self.damaged[file.sha256])
        return self.context.undamaged_chunks(file.sha256, start, what)


def open_revision(
    context: RegistryContext, name: AdapterName, revision: Digest, paths: Collection[str] | None = None
) -> OpenRevision:
    """One revision. Only these files will be read from it (by default, any files). Raises `NotFound`."""
    with context.catalog.read_prepared() as tx:
        adapter = context.readable_adapter(tx, name)
        tree = context.tree_of(tx, adapter, revision)
        wanted = {entry.sha256 for entry in tree.files if paths is None or entry.path in paths}
        held = states.find_withdrawn_revision(tx, adapter, revision)
        return OpenRevision(context, name, revision, tree, held, damage.damage_reasons(tx, wanted))


def open_revisions(
    context: RegistryContext, revisions: Sequence[tuple[AdapterName, Digest]]
) -> tuple[FileReader, ...]:
    """Implements `Files.readers`, with a number of statements that does not grow with the number of
    revisions.
    """
    if len(revisions) == 1:
        return (_reader(context, *revisions[0]),)
    with context.catalog.read() as tx:
        found = adapters.find_all(tx, {name for name, _ in revisions})
        seen = [_seen(context, name, found.get(name)) for name, _ in revisions]
        wanted = {
            (adapter.key, revision)
            for adapter, (_, revision) in zip(seen, revisions, strict=True)
            if isinstance(adapter, AdapterRecord)
        }
        trees = commits.trees(tx, wanted)
        held = states.find_withdrawn_revisions(tx, wanted)
        damaged = damage.damage_reasons(tx, {entry.sha256 for tree in trees.values() for entry in tree.files})
    opened: list[FileReader] = []
    for adapter, (name, revision) in zip(seen, revisions, strict=True):
        if isinstance(adapter, AdaptryError):
            opened.append(partial(_refuse, adapter))
        elif (tree := trees.get((adapter.key, revision))) is None:
            opened.append(partial(_refuse, no_revision(name, revision)))
        else:
            place = (adapter.key, revision)
            opened.append(OpenRevision(context, name, revision, tree, held.get(place), damaged).read)
    return tuple(opened)


def _reader(context: RegistryContext, name: AdapterName, revision: Digest) -> FileReader:
    try:
        return open_revision(context, name, revision).read
    except NotFound as error:
        return partial(_refuse, error)


def _seen(
    context: RegistryContext, name: AdapterName, adapter: AdapterRecord | None
) -> AdapterRecord | NotFound:
    try:
        return context.require_readable(name, adapter)
    except NotFound as error:
        return error


def _refuse(error: AdaptryError, path: str, start: int = 0) -> Iterator[bytes]:
    raise error


def check_start(start: int, size: int, path: str) -> None:
    """Checks the position from which to read. Raises `Invalid`."""
    if not 0 <= start <= size:
        raise Invalid(f"{path[:80]} is {size:,} bytes; it cannot be read from {start}")
