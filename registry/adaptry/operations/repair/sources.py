"""Sources of intact bytes: another registry, a bundle, a folder, a cache, or a bit flipped back.

Sources are not trusted: their bytes are hashed before they are stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, Invalid, NotFound, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, Ref
from adaptry.core.settings import is_server
from adaptry.operations.mirror.bundles.archive import Bundle, open_bundle
from adaptry.operations.repair.bit_flip import MAX_BYTES, undo_bit_flip
from adaptry.registry.interface import Registry
from adaptry.storage.blobs import BlobStore
from adaptry.storage.blobs.store import CHUNK
from adaptry.storage.blobs.tiered import TieredBlobs
from adaptry.storage.connect import connect, is_registry, resolve_folder
from adaptry.storage.local import LocalRegistry


@dataclass(frozen=True, slots=True)
class FileLocation:
    """A file's place in a registry: an adapter's revision, or a base or evidence (without one), and its path
    there.
    """

    owner: AdapterName | Digest
    revision: Digest | None
    path: str


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A file that is damaged here: its digest, its size in bytes, and all places where it belongs."""

    digest: Digest
    size: int
    places: tuple[FileLocation, ...]


class RepairSource(ABC):
    """A source of intact bytes. `name` is shown to users."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def find(self, damaged_file: DamagedFile) -> Iterator[bytes] | None:
        """Streams the file from its beginning; None if the source does not have it."""

    def manifest(self, revision: Digest, owners: tuple[AdapterName, ...]) -> bytes | None:
        """The manifest of a revision; None if the source does not have it."""
        return None


class RegistrySource(RepairSource):
    """Another registry with the same adapter names; if it is in a folder, files are found whatever their
    names.
    """

    def __init__(self, name: str, registry: Registry) -> None:
        super().__init__(name)
        self._registry = registry

    def find(self, damaged_file: DamagedFile) -> Iterator[bytes] | None:
        if isinstance(self._registry, LocalRegistry):
            with suppress(NotFound):
                blobs = self._registry.blobs
                return (
                    blobs.chunks(damaged_file.digest)
                    if blobs.size(damaged_file.digest) == damaged_file.size
                    else None
                )
            return None
        for location in damaged_file.places:
            with suppress(AdaptryError):
                return self._read(location, damaged_file.digest)
        return None

    def manifest(self, revision: Digest, owners: tuple[AdapterName, ...]) -> bytes | None:
        for owner in owners:
            with suppress(AdaptryError):
                return self._registry.commits.tree(owner, revision).to_bytes()
        return None

    def _read(self, location: FileLocation, digest: Digest) -> Iterator[bytes]:
        """Reads a file from the other registry. Raises `NotFound` if it has a different file there, and the
        errors of reading.
        """
        if isinstance(location.owner, Digest):
            found = next(
                (
                    one
                    for one in self._registry.bases.get(str(location.owner)).stored
                    if one.path == location.path
                ),
                None,
            )
            if found is None or found.sha256 != digest:
                raise NotFound(f"{self.name} does not store {location.path}")
            return self._registry.bases.read_file(location.owner, location.path)
        if location.revision is None:
            raise NotFound(f"{self.name} cannot be searched for {location.path}")
        version = Ref.of_revision(location.owner, location.revision)
        if self._registry.versions.get(version).is_damaged:
            raise NotFound(f"the copy in {self.name} is damaged as well")
        return self._registry.files.read(location.owner, location.revision, location.path)


class BundleSource(RepairSource):
    """A source of intact bytes in a bundle file."""

    def __init__(self, path: Path, bundle: Bundle) -> None:
        super().__init__(str(path))
        self._bundle = bundle
        self._entries = {(entry.kind, entry.digest): entry for entry in bundle.index.entries}

    def find(self, damaged_file: DamagedFile) -> Iterator[bytes] | None:
        entry = self._entries.get(("file", damaged_file.digest))
        return self._bundle.chunks(entry) if entry else None

    def manifest(self, revision: Digest, owners: tuple[AdapterName, ...]) -> bytes | None:
        entry = self._entries.get(("manifest", revision))
        return b"".join(self._bundle.chunks(entry)) if entry else None


class FolderSource(RepairSource):
    """A folder with files of any names, such as the pushed one; files of the right size are hashed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._sizes = {path: path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
        self._digests: dict[Path, Digest] = {}

    def find(self, damaged_file: DamagedFile) -> Iterator[bytes] | None:
        for path, size in self._sizes.items():
            if size == damaged_file.size and self._digest(path) == damaged_file.digest:
                return _chunks(path)
        return None

    def _digest(self, path: Path) -> Digest:
        if path not in self._digests:
            self._digests[path] = Digest.of_chunks(_chunks(path))
        return self._digests[path]


class LocalSource(RepairSource):
    """This registry itself: an intact copy in its cache, or a damaged file with one bit flipped back."""

    def __init__(self, blobs: BlobStore, manifests: Mapping[Digest, bytes]) -> None:
        super().__init__("this registry")
        self._blobs = blobs
        self._manifests = manifests
        self._corrected: dict[Digest, bytes | None] = {}
        """Kept, since the damaged bytes are moved before they are replaced."""

    def find(self, damaged_file: DamagedFile) -> Iterator[bytes] | None:
        if isinstance(self._blobs, TieredBlobs) and (copy := self._blobs.sound_copy(damaged_file.digest)):
            return copy
        if damaged_file.digest not in self._corrected:
            self._corrected[damaged_file.digest] = self._undo_bit_flip(damaged_file)
        corrected = self._corrected[damaged_file.digest]
        return iter([corrected]) if corrected is not None else None

    def manifest(self, revision: Digest, owners: tuple[AdapterName, ...]) -> bytes | None:
        return undo_bit_flip(self._manifests.get(revision, b""), revision)

    def _undo_bit_flip(self, damaged_file: DamagedFile) -> bytes | None:
        try:
            return undo_bit_flip(
                self._blobs.original.read(damaged_file.digest, 0, MAX_BYTES + 1), damaged_file.digest
            )
        except NotFound:
            return None


def _chunks(path: Path) -> Iterator[bytes]:
    """Streams a file. Raises `Unavailable` if it cannot be read."""
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error


def open_source(where: str, stack: ExitStack) -> RepairSource:
    """Opens a source by its location: a registry's URL or folder, a bundle, or a folder of files. `stack`
    closes it.

    Raises `Invalid`, `NotFound`, `InvalidBundle`, `Unavailable`.
    """
    if is_server(where):
        registry = connect(where)
        stack.callback(registry.close)
        return RegistrySource(where, registry)
    path = Path(where).expanduser()
    if path.is_file():
        return BundleSource(path, stack.enter_context(open_bundle(path)))
    if path.is_dir() and is_registry(path):
        registry = connect(str(path.absolute()), create_missing=False)
        stack.callback(registry.close)
        return RegistrySource(str(path), registry)
    if path.is_dir():
        return FolderSource(path)
    if "://" in where:
        resolve_folder(where)  # raises an error that shows the form of addresses
        raise Invalid(f"not a source: {where[:200]}")
    raise NotFound(f"no registry, bundle or folder {where[:200]}; pass an existing one with --from")
