"""Digests: the identity of bytes.

A SHA-256, because the Hub, OCI registries and every `sha256sum` agree on it. A revision's digest is
that of its manifest's bytes; a file's, that of the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

_PATTERN = lazy_pattern(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A SHA-256 of some bytes, written `sha256:<64 hex>`."""

    hex: str

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _PATTERN.fullmatch(text):
            raise Invalid(f"not a digest: {text[:80]!r} (expected sha256:<64 lower-case hex digits>)")
        return cls(text.removeprefix("sha256:"))

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        return cls(hashlib.sha256(data).hexdigest())

    @classmethod
    def of_chunks(cls, chunks: Iterable[bytes | memoryview]) -> Self:
        hasher = hashlib.sha256()
        for chunk in chunks:
            hasher.update(chunk)
        return cls(hasher.hexdigest())

    @property
    def short_id(self) -> str:
        """The first 40 hex digits, used where a client expects a git commit id."""
        return self.hex[:40]

    @property
    def brief(self) -> str:
        """`sha256:` and 12 digits: the form shown to people, and the shortest that a ref accepts."""
        return f"sha256:{self.hex[:12]}"

    def __str__(self) -> str:
        return f"sha256:{self.hex}"

    def __repr__(self) -> str:
        return f"Digest({str(self)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Serialises a digest as its text. (`Any`: the type in pydantic's signature.)"""
        from pydantic_core import core_schema  # not every command uses models

        def read(value: object) -> Digest:
            if isinstance(value, Digest):
                return value
            try:
                return cls.parse(str(value))
            except Invalid as error:
                raise ValueError(error.message) from None

        return core_schema.no_info_plain_validator_function(
            read,
            json_schema_input_schema=core_schema.str_schema(pattern=f"^{_PATTERN.pattern}$"),
            serialization=core_schema.plain_serializer_function_ser_schema(
                str, return_schema=core_schema.str_schema(pattern=f"^{_PATTERN.pattern}$")
            ),
        )
