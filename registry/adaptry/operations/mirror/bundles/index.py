"""A bundle's index: the first entry of the file, and the only one that is not verified by a digest.

Everything else is named by its digest, in the order of the index. So the index and the bytes of the files
determine all bytes of a bundle: it cannot contain arbitrary names, duplicates or additional data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, InvalidBundle, ProtocolMismatch
from adaptry.core.manifest import LIMITS as MANIFEST_LIMITS
from adaptry.core.manifest import MAX_FILE, FileEntry
from adaptry.operations.mirror.snapshot import VersionSnapshot
from adaptry.registry.records import Value

FORMAT = 1
LIMITS = strictjson.JsonLimits(size=64 << 20, depth=8, nodes=4_000_000)
MAX_BASE_RECORD = 64 << 20
"""Maximum size of a base's record in bytes."""
Kind = Literal["manifest", "base", "file"]
_ORDER: tuple[Kind, ...] = ("manifest", "base", "file")
_MAX_BYTES: dict[Kind, int] = {"manifest": MANIFEST_LIMITS.size, "base": MAX_BASE_RECORD, "file": MAX_FILE}


class BundleEntry(Value, extra="forbid"):
    """An entry after the index: its kind, its digest, its size in bytes."""

    kind: Kind
    digest: Digest
    size: int = Field(ge=0, le=MAX_FILE)

    @property
    def name(self) -> str:
        return f"{self.kind}s/{self.digest.hex}"

    @property
    def sort_key(self) -> tuple[int, str]:
        """The key by which entries are sorted."""
        return _ORDER.index(self.kind), self.digest.hex


class BundledBase(Value, extra="forbid"):
    """A base: its id, the digest of its record, its names, and its files, if they are in the bundle."""

    id: Digest
    record: Digest
    names: tuple[Annotated[str, Field(min_length=1, max_length=512)], ...] = Field(default=(), max_length=16)
    files: tuple[FileEntry, ...] = Field(default=(), max_length=4096)


class BundleIndex(Value, extra="forbid"):
    """`parcels`: version snapshots by name and number; `bases` are sorted by id, `entries` by `sort_key`."""

    bundle: int = FORMAT
    parcels: tuple[VersionSnapshot, ...] = Field(min_length=1, max_length=100_000)
    bases: tuple[BundledBase, ...] = Field(default=(), max_length=10_000)
    entries: tuple[BundleEntry, ...] = Field(max_length=1_000_000)

    def to_bytes(self) -> bytes:
        return strictjson.canonical(self.model_dump(mode="json"))

    @classmethod
    def parse(cls, data: bytes) -> BundleIndex:
        """Parses the index. Raises `InvalidBundle`, and `ProtocolMismatch` for the format of a newer
        Adaptry.
        """
        try:
            document = strictjson.loads(data, LIMITS, "the bundle's index")
            form = document.get("bundle") if isinstance(document, dict) else None
            if type(form) is int and form > FORMAT:
                raise ProtocolMismatch(
                    f"this bundle has format {form}, but this Adaptry reads {FORMAT}: upgrade adaptry"
                )
            index = cls.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InvalidBundle(f"not a bundle's index: {where[:200]}: {first['msg']}") from None
        except ProtocolMismatch:
            raise
        except AdaptryError as error:
            raise InvalidBundle(error.message) from None
        index.check()
        if index.to_bytes() != data:
            raise InvalidBundle("the bundle's index is not in canonical form")
        return index

    def check(self) -> None:
        """Raises `InvalidBundle` if the parts are inconsistent."""
        if self.bundle != FORMAT:
            raise InvalidBundle(f'a bundle\'s index must have "bundle": {FORMAT}')
        _require_ascending((entry.sort_key for entry in self.entries), "entries")
        _require_ascending(((str(one.name), one.number) for one in self.parcels), "parcels")
        _require_ascending((base.id.hex for base in self.bases), "bases")
        for entry in self.entries:
            if entry.size > _MAX_BYTES[entry.kind]:
                raise InvalidBundle(
                    f"{entry.name} is {entry.size:,} bytes; at most {_MAX_BYTES[entry.kind]:,} are read"
                )
        for kind, wanted in (
            ("manifest", {snapshot.digest for snapshot in self.parcels}),
            ("base", {base.record for base in self.bases}),
        ):
            if {entry.digest for entry in self.entries if entry.kind == kind} != wanted:
                raise InvalidBundle(
                    f"the bundle's {kind}s differ from those that its versions and bases name"
                )

    def check_files(self, manifests: Iterable[Iterable[FileEntry]]) -> None:
        """Raises `InvalidBundle` unless the files are those that manifests and bases name, with the same
        sizes.
        """
        named: dict[Digest, int] = {}
        for files in (*manifests, *(base.files for base in self.bases)):
            for file in files:
                if named.setdefault(file.sha256, file.size) != file.size:
                    raise InvalidBundle(f"{file.path} has two sizes")
        if {entry.digest: entry.size for entry in self.entries if entry.kind == "file"} != named:
            raise InvalidBundle("the bundle's files differ from those that its manifests and bases name")


def _require_ascending(keys: Iterator[object] | Iterable[object], what: str) -> None:
    before: object = None
    for key in keys:
        # The keys are tuples or texts, all of one kind.
        if before is not None and not before < key:  # type: ignore[operator]
            raise InvalidBundle(f"the bundle's {what} are not in order, or one is duplicated")
        before = key
