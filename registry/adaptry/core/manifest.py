"""The manifest of a revision: its content, as its author declared it.

A manifest lists files by digest, the base that the adapter was trained on, the revisions that it was derived
from, and the recipe. It has neither author, time nor name, nor anything that we derive (spec, findings,
fingerprints): those are rows of the catalog. Its canonical bytes are stored exactly, and their digest *is*
the revision. So equal content is one revision, in every push.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, InvalidManifest, ProtocolMismatch, TooLarge
from adaptry.core.tree_paths import check_path

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
_ENTRY = 140
"""Maximum size in bytes of a file's entry in a manifest, without its path."""


def check_tree(paths: Collection[str]) -> None:
    """Raises `TooLarge` if these are too many paths for one branch, or too long together."""
    if len(paths) > MAX_TREE:
        raise TooLarge(
            f"{len(paths):,} files; a branch has at most {MAX_TREE:,}. Delete unneeded checkpoints in a "
            "separate commit, or upload to another branch"
        )
    if sum(map(len, paths)) + len(paths) * _ENTRY > LIMITS.size:
        raise TooLarge(
            f"the names of these {len(paths):,} files are too long together; shorten the folders' names, or"
            " upload to another branch"
        )


class FileEntry(BaseModel):
    """One file of a revision: its name, its size in bytes, its SHA-256."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int = Field(ge=0, le=MAX_FILE)
    sha256: Digest


class BaseClaim(BaseModel):
    """The base that an adapter declares: its content id, if known, and its name."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    id: Digest | None = None
    name: str | None = Field(default=None, max_length=512)


class Manifest(BaseModel):
    """An immutable tree of files and what its author declared about it. Its identity is `digest`.

    A manifest does not check that the files form an adapter; admission does. A branch begins with an empty
    tree.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_number: int = Field(default=SCHEMA, alias="schema")
    files: tuple[FileEntry, ...] = ()
    base: BaseClaim | None = None
    parents: tuple[Digest, ...] = Field(default=(), max_length=64)
    recipe: dict[str, Any] | None = None  # as the user wrote it; `merging` parses it
    provenance: dict[str, str] = Field(default_factory=dict, max_length=64)

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if len(self.files) > MAX_TREE:
            raise ValueError(f"{len(self.files)} files; a tree has at most {MAX_TREE}")
        if sum(entry.size for entry in self.files) > MAX_TREE_SIZE:
            raise ValueError(f"over {MAX_TREE_SIZE >> 40} TiB in one tree")
        paths = [check_path(entry.path) for entry in self.files]
        if paths != sorted(paths):
            raise ValueError("files must be sorted by path")
        if len({path.lower() for path in paths}) != len(paths):
            raise ValueError("two files differ only by case, or not at all")
        return self

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
        except ValidationError as error:
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
            raise InvalidManifest(f'a manifest says "schema": {SCHEMA}')
        try:
            manifest = cls.model_validate(document)
        except ValidationError as error:
            raise InvalidManifest(_sentence(error)) from None
        if manifest.to_bytes() != data:
            raise InvalidManifest(
                "the manifest is not in canonical form (sorted keys, no spaces, no empty fields), "
                "so its digest would not be its identity"
            )
        return manifest

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, empty fields left out."""
        document = self.model_dump(mode="json", by_alias=True)
        kept = {key: value for key, value in document.items() if value not in (None, [], {})}
        if self.base:
            kept["base"] = self.base.model_dump(mode="json", exclude_none=True)
        return strictjson.canonical(kept)

    @property
    def digest(self) -> Digest:
        return Digest.of(self.to_bytes())

    @property
    def size(self) -> int:
        """The size of all files together, in bytes."""
        return sum(entry.size for entry in self.files)

    def file(self, path: str) -> FileEntry | None:
        return next((entry for entry in self.files if entry.path == path), None)

    @property
    def weights(self) -> dict[str, Digest]:
        """The files that hold tensors, by path."""
        return {entry.path: entry.sha256 for entry in self.files if entry.path.endswith(".safetensors")}


EMPTY = Manifest()
"""The content of the first commit of every adapter."""


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    reason = str(first["msg"]).removeprefix("Value error, ")
    return f"not a manifest: {where + ': ' if where else ''}{reason}"
