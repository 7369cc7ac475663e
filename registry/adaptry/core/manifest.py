"""The manifest of a revision: its content, as its author declared it.

A manifest lists files by digest, the base that the adapter was trained on, the revisions that it was derived
from, and the recipe. It has neither author, time nor name, nor anything that we derive (spec, findings,
fingerprints): those are rows of the catalog. Its canonical bytes are stored exactly, and their digest *is*
the revision. So equal content is one revision, in every push.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, Invalid, InvalidManifest, ProtocolMismatch, TooLarge
from adaptry.core.tree_paths import check_path
from adaptry.core.value import CLOSED, FrozenValue, limited, value

if TYPE_CHECKING:
    from pydantic import ConfigDict

if TYPE_CHECKING:
    pass

SCHEMA = 1
MAX_FILES = 32
"""Maximum number of files in a version."""
MAX_TREE = 8192
"""Maximum number of files in a branch, which may hold checkpoints in folders."""
MAX_FILE = 8 << 30
MAX_REVISION = 16 << 30
"""Maximum size of a version in bytes."""
MAX_TREE_SIZE = 1 << 40
"""Maximum size of a branch in bytes."""
LIMITS = strictjson.JsonLimits(
    size=1_500_000, depth=16, nodes=100_000
)  # a request of 2 MiB contains it as base64
_MAX_NAME = 512
_MAX_DECLARED = 64
_ENTRY = 140
"""Maximum size in bytes of a file's entry in a manifest, without its path."""


def check_tree(paths: Collection[str]) -> None:
    """Raises `TooLarge` if there are too many paths for one branch, or if they are too long in total."""
    if len(paths) > MAX_TREE:
        raise TooLarge(
            f"{len(paths):,} files; a branch has at most {MAX_TREE:,}. Delete unneeded checkpoints in a "
            "separate commit, or upload to another branch"
        )
    if sum(map(len, paths)) + len(paths) * _ENTRY > LIMITS.size:
        raise TooLarge(
            f"the names of these {len(paths):,} files have too many characters in total; shorten the names of"
            " the folders, or upload to another branch"
        )


@value
class FileEntry(FrozenValue):
    """One file of a revision: its name, its size in bytes, its SHA-256."""

    __pydantic_config__ = CLOSED

    path: str
    size: int = limited(ge=0, le=MAX_FILE)
    sha256: Digest

    def _is_plain(self) -> bool:
        has_types = type(self.path) is str and type(self.size) is int and type(self.sha256) is Digest
        return has_types and 0 <= self.size <= MAX_FILE


@value
class BaseClaim(FrozenValue):
    """The base that an adapter declares: its content id, if known, and its name."""

    __pydantic_config__ = CLOSED

    id: Digest | None = None
    name: str | None = limited(default=None, max_length=_MAX_NAME)

    def _is_plain(self) -> bool:
        is_name = self.name is None or (type(self.name) is str and len(self.name) <= _MAX_NAME)
        return is_name and (self.id is None or type(self.id) is Digest)


@value
class Manifest(FrozenValue):
    """An immutable tree of files and what its author declared about it. Its identity is `digest`.

    A manifest does not check that the files form an adapter; admission does. A branch begins with an empty
    tree.
    """

    __pydantic_config__: ClassVar[ConfigDict] = {**CLOSED, "populate_by_name": True}

    schema_number: int = limited(default=SCHEMA, alias="schema")
    files: tuple[FileEntry, ...] = ()
    base: BaseClaim | None = None
    parents: tuple[Digest, ...] = limited(default=(), max_length=_MAX_DECLARED)
    recipe: dict[str, Any] | None = None  # as the user wrote it; `merging` parses it
    provenance: dict[str, str] = limited(default_factory=dict, max_length=_MAX_DECLARED)

    def _is_plain(self) -> bool:
        return (
            type(self.schema_number) is int
            and _all_have_type(FileEntry, self.files)
            and (self.base is None or type(self.base) is BaseClaim)
            and _all_have_type(Digest, self.parents)
            and (self.recipe is None or type(self.recipe) is dict)
            and type(self.provenance) is dict
            and all(type(text) is str for pair in self.provenance.items() for text in pair)
            and max(len(self.parents), len(self.provenance)) <= _MAX_DECLARED
        )

    def __post_init__(self) -> None:
        if not _all_have_type(FileEntry, self.files):
            return  # pydantic reads them, then calls this again
        if len(self.files) > MAX_TREE:
            raise ValueError(f"{len(self.files)} files; a tree has at most {MAX_TREE}")
        if sum(entry.size for entry in self.files) > MAX_TREE_SIZE:
            raise ValueError(f"the files have more than {MAX_TREE_SIZE >> 40} TiB, the most for a tree")
        paths = [check_path(entry.path) for entry in self.files]
        if paths != sorted(paths):
            raise ValueError("files must be sorted by path")
        if len({path.lower() for path in paths}) != len(paths):
            raise ValueError("two files have the same path, or paths that differ only by case")

    @classmethod
    def of(
        cls,
        files: Mapping[str, tuple[int, Digest]],
        *,
        base: BaseClaim | None = None,
        parents: tuple[Digest, ...] = (),
        recipe: dict[str, Any] | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> Manifest:
        """A manifest of `{path: (size, digest)}`. Raises `InvalidManifest` or `InvalidPath`."""
        entries = tuple(
            FileEntry(path=path, size=size, sha256=digest) for path, (size, digest) in sorted(files.items())
        )
        try:
            return cls(
                files=entries, base=base, parents=parents, recipe=recipe, provenance=dict(provenance or {})
            )
        except ValueError as error:
            raise InvalidManifest(_sentence(error)) from None

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """The manifest in `data`, which must be its canonical bytes.

        Raises `ProtocolMismatch` for a schema this version does not know, else `InvalidManifest`.
        """
        try:
            document = strictjson.loads(data, LIMITS, "the manifest")
        except Invalid as error:
            raise InvalidManifest(error.message) from None
        if not isinstance(document, dict):
            raise InvalidManifest("a manifest is a JSON object")
        schema = document.get("schema")
        if isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA:
            raise ProtocolMismatch(
                f"this manifest is of schema {schema} and this Adaptry reads schema {SCHEMA}: upgrade adaptry"
            )
        if schema != SCHEMA or isinstance(schema, bool):
            raise InvalidManifest(f'a manifest must have "schema": {SCHEMA}')
        try:
            manifest = _plain_manifest(document) or cls.model_validate(document)
        except ValueError as error:
            raise InvalidManifest(_sentence(error)) from None
        if manifest.to_bytes() != data:
            raise InvalidManifest(
                "the manifest is not in canonical form (sorted keys, no spaces, no empty fields), "
                "so its digest would not be its identity"
            )
        return manifest

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, empty fields left out."""
        recipe = self.recipe and self.model_dump(mode="json", include={"recipe"})["recipe"]
        document = {
            "schema": self.schema_number,
            "files": [{**vars(entry), "sha256": str(entry.sha256)} for entry in self.files],
            "parents": [str(parent) for parent in self.parents],
            "recipe": recipe,
            "provenance": self.provenance,
        }
        kept = {key: value for key, value in document.items() if value not in (None, [], {})}
        if self.base:
            kept["base"] = {key: str(text) for key, text in vars(self.base).items() if text is not None}
        return strictjson.canonical(kept)

    @property
    def digest(self) -> Digest:
        return Digest.of(self.to_bytes())

    @property
    def size(self) -> int:
        """The total size of all files in bytes."""
        return sum(entry.size for entry in self.files)

    def file(self, path: str) -> FileEntry | None:
        return next((entry for entry in self.files if entry.path == path), None)

    @property
    def weights(self) -> dict[str, Digest]:
        """The files that hold tensors, by path."""
        return {entry.path: entry.sha256 for entry in self.files if entry.path.endswith(".safetensors")}


def _plain_manifest(document: Mapping[str, Any]) -> Manifest | None:
    """The manifest of a document whose fields have exactly their types, as nearly all have; None for others,
    which pydantic converts, or refuses with its reasons. (`Any`: JSON.)
    """
    fields = {"schema_number" if key == "schema" else key: given for key, given in document.items()}
    try:
        fields["files"] = tuple(map(_plain_entry, fields.get("files", ())))
        fields["parents"] = tuple(map(Digest.parse, fields.get("parents", ())))
        if "base" in fields:
            claim = fields["base"]
            fields["base"] = BaseClaim(
                **{**claim, **({"id": Digest.parse(claim["id"])} if "id" in claim else {})}
            )
        return Manifest(**fields)
    except (AdaptryError, TypeError, ValueError, KeyError):
        return None


def _plain_entry(entry: Mapping[str, Any]) -> FileEntry:
    """(`Any`: JSON.)"""
    return FileEntry(**{**entry, "sha256": Digest.parse(entry["sha256"])})


def _all_have_type(kind: type, items: object) -> bool:
    return type(items) is tuple and all(type(item) is kind for item in items)


def _sentence(error: ValueError) -> str:
    if not hasattr(error, "errors"):
        return f"not a manifest: {error}"
    from adaptry.core.validation import describe_fault, first_fault

    fault = first_fault(error)
    where = ".".join(str(part) for part in fault["loc"])
    return f"not a manifest: {where + ': ' if where else ''}{describe_fault(fault)}"


EMPTY = Manifest()
"""The content of the first commit of every adapter."""
