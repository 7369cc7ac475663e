"""Checkpoints of a log, as signed notes: c2sp.org/tlog-checkpoint and c2sp.org/signed-note.

A checkpoint states the number of a log's entries and the root of the Merkle tree over them. The key that
signs it has the log's name. Anyone with an old checkpoint can prove that the entries it covers were not
rewritten.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Self

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.transparency import ed25519

_ED25519 = b"\1"
_SIGNATURE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/=]+)")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
MAX_LENGTH = 64 << 10


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public half of a log's key, written `NAME+HASH+KEY`; `name` is the log's."""

    name: str
    public: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses a verifier key. Raises `Invalid`."""
        name, _, rest = text.strip().partition("+")
        id_hex, _, encoded = rest.partition("+")
        data = _decode_base64(encoded)
        if data is None or len(data) != 33 or data[:1] != _ED25519:
            raise Invalid(
                "not a key of an audit log (expected NAME+HASH+KEY, the `key` that `adaptry audit"
                " checkpoint --json` shows)"
            )
        key = cls(name, data[1:])
        if key.id.hex() != id_hex:
            raise Invalid("that key is damaged: its name and hash do not belong together")
        return key

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{_encode_base64(_ED25519 + self.public)}"


@dataclass(frozen=True, slots=True)
class LogCheckpoint:
    """The log `origin` has `size` entries, and this root."""

    origin: str
    size: int
    root: bytes

    @property
    def body(self) -> str:
        return f"{self.origin}\n{self.size}\n{_encode_base64(self.root)}\n"

    def sign(self, seed: bytes) -> str:
        """Signs the checkpoint; returns the note."""
        key = VerifierKey(self.origin, ed25519.public_key(seed))
        signature = _encode_base64(key.id + ed25519.sign(seed, self.body.encode()))
        return f"{self.body}\n— {key.name} {signature}\n"

    @classmethod
    def parse(cls, note: str) -> Self:
        """The checkpoint in a note, without verifying its signatures. Raises `Invalid`."""
        body, _ = _split_note(note)
        origin, size, root, *_ = *body.split("\n"), "", "", ""
        decoded = _decode_base64(root)
        if not origin or not _SIZE.fullmatch(size) or decoded is None or len(decoded) != 32:
            raise Invalid("not a checkpoint (expected three lines: a name, a number of entries and a root)")
        return cls(origin, int(size), decoded)

    @classmethod
    def verify(cls, note: str, key: VerifierKey) -> Self:
        """The checkpoint in a note that `key` signed. Raises `Invalid` if it did not."""
        checkpoint = cls.parse(note)
        body, signatures = _split_note(note)
        for name, data in signatures:
            is_of_key = name == key.name and data[:4] == key.id
            if is_of_key and ed25519.is_signature(key.public, body.encode(), data[4:]):
                return checkpoint
        raise Invalid(f"the checkpoint of {checkpoint.size} entries has no valid signature of {key}")


def _split_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """The signed text, and the signatures by key name. Raises `Invalid`."""
    body, gap, rest = note[:MAX_LENGTH].rpartition("\n\n")
    found = [_SIGNATURE.fullmatch(line) for line in rest.splitlines()]
    signatures = [(one[1], _decode_base64(one[2]) or b"") for one in found if one]
    if not gap or not signatures or len(signatures) != len(found):
        raise Invalid("not a signed checkpoint: it has no signature lines")
    return body + "\n", signatures


def _encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
