"""The index of a backup: the digest of its catalog, which names all other files, and of the index itself."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field, ValidationError

from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, InvalidBackup, ProtocolMismatch
from adaptry.registry.records import Value

FORMAT = 1
LIMITS = strictjson.JsonLimits(size=1 << 20, depth=4, nodes=10_000)
LACKING = 1000
"""Maximum number of files that may be missing from a backup."""


class BackupIndex(Value, extra="forbid"):
    """`catalog` is the digest of the SQLite file, of `catalog_size` bytes; it names `files` files of `total`
    bytes together. `lacking` are those that were damaged or lost when the backup was taken.
    """

    backup: int = FORMAT
    created_at: datetime
    epoch: str = Field(max_length=64)
    catalog: Digest
    catalog_size: int = Field(ge=0)
    files: int = Field(ge=0)
    total: int = Field(ge=0)
    lacking: tuple[Digest, ...] = Field(default=(), max_length=LACKING)

    def to_bytes(self) -> bytes:
        """The index with a digest over itself, so that any changed bit is detected."""
        document = self.model_dump(mode="json")
        return strictjson.canonical(
            {"index": document, "sha256": Digest.of(strictjson.canonical(document)).hex}
        )

    @classmethod
    def parse(cls, data: bytes) -> BackupIndex:
        """Parses the index. Raises `InvalidBackup`, and `ProtocolMismatch` for the format of a newer
        Adaptry.
        """
        try:
            whole = strictjson.loads(data, LIMITS, "the backup's index")
            document = whole.get("index") if isinstance(whole, dict) else None
            if not isinstance(document, dict) or not isinstance(whole, dict):
                raise InvalidBackup("not a backup: its index was not written by Adaptry")
            if Digest.of(strictjson.canonical(document)).hex != whole.get("sha256"):
                raise InvalidBackup("the backup's index was changed or damaged; use another backup")
            if document.get("backup") != FORMAT:
                raise ProtocolMismatch(f"this Adaptry reads backups of format {FORMAT}: upgrade adaptry")
            return cls.model_validate(document)
        except ValidationError as error:
            raise InvalidBackup(f"not a backup's index: {error.errors()[0]['msg']}") from None
        except (InvalidBackup, ProtocolMismatch):
            raise
        except AdaptryError as error:
            raise InvalidBackup(error.message) from None
