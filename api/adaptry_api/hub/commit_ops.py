"""The lines of a commit, parsed as they arrive: a header, then files to add, copy and delete.

Each line is a JSON object. Lines contain small files, so their length is limited, and only one line is in
memory.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, TooLarge
from adaptry.core.manifest import MAX_TREE

MAX_INLINE = 4 << 20
"""Maximum size in bytes of a file inside a line: larger than any file that clients are asked to send inline.
"""
MAX_BODY = 256 << 20
MAX_OPERATIONS = MAX_TREE
"""Maximum number of operations of a commit: as many as a branch may have files."""


class _Value(BaseModel):
    """The fields of a line; fields of other client versions are ignored."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)


class CommitHeader(_Value):
    """The message of the commit, and the parent commit that the client expects, if it names one."""

    summary: str = ""
    description: str = ""
    parentCommit: str | None = None  # noqa: N815  the protocol's spelling


class InlineFile(_Value):
    """A small file with its bytes."""

    path: str
    content: str
    encoding: Literal["base64", "utf-8"] = "base64"

    @property
    def data(self) -> bytes:
        """The decoded bytes. Raises `Invalid`."""
        if self.encoding == "utf-8":
            return self.content.encode()
        try:
            return base64.b64decode(self.content, validate=True)
        except (binascii.Error, ValueError):
            raise Invalid(f"the content of {self.path[:200]!a} is not base64") from None


class LargeFile(_Value):
    """A file whose bytes were sent before. A copy has no size."""

    path: str
    oid: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    algo: Literal["sha256"] = "sha256"
    size: Annotated[int, Field(ge=0)] | None = None

    @property
    def digest(self) -> Digest:
        return Digest(self.oid)


class DeletedFile(_Value):
    """A file to delete, or a folder with its contents."""

    path: str


class DeletedFolder(_Value):
    path: str


Operation = CommitHeader | InlineFile | LargeFile | DeletedFile | DeletedFolder
_KINDS: dict[str, type[Operation]] = {
    "header": CommitHeader,
    "file": InlineFile,
    "lfsFile": LargeFile,
    "deletedFile": DeletedFile,
    "deletedFolder": DeletedFolder,
}


def read_operations(pieces: Iterable[bytes], max_inline: int = MAX_INLINE) -> Iterator[Operation]:
    """Reads the operations from the lines, in order. A file inside a line may have at most `max_inline`
    bytes. Raises `Invalid`, `TooLarge`.
    """
    limits = strictjson.JsonLimits(size=max_inline * 4 // 3 + (64 << 10), nodes=100)
    for number, line in enumerate(_lines(pieces, limits.size), 1):
        if number > MAX_OPERATIONS:
            raise TooLarge(f"a commit has at most {MAX_OPERATIONS} operations; make several commits")
        document = strictjson.loads(line, limits, f"line {number} of the commit")
        kind = _KINDS.get(str(document.get("key"))) if isinstance(document, dict) else None
        if kind is None:
            raise Invalid(f"line {number} of the commit has none of the keys {', '.join(_KINDS)}")
        try:
            yield kind.model_validate(document.get("value"))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Invalid(f"line {number} of the commit: {where[:80]}: {first['msg']}") from None


def _lines(pieces: Iterable[bytes], longest: int) -> Iterator[bytes]:
    """The lines that are not empty. Raises `TooLarge` before more than one line is in memory."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        *ends, rest = piece.split(b"\n")
        for end in ends:
            line = b"".join([*held, end])
            held, size = [], 0
            if line.strip():
                yield line
        held.append(rest)
        size += len(rest)
        if size > longest:
            raise TooLarge(
                f"a file inside a commit has at most {longest * 3 // 4 >> 20} MiB; upload it as a large file"
            )
    line = b"".join(held)
    if line.strip():
        yield line
