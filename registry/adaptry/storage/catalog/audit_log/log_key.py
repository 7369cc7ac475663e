"""The key that signs an audit log's checkpoints: derived from the servers' signing secret, else in a file."""

from __future__ import annotations

import hmac
import os
from functools import cached_property
from pathlib import Path

from adaptry.core.errors import Unavailable

_PURPOSE = b"adaptry audit log checkpoints, Ed25519"
KEY_FILE = "audit-key"
RESTORED = "restored"
"""Stands for the process that seals, from a restore until the next process does: no backup contains the key,
so that process may sign with another one.
"""


class LogKey:
    """`secret` is shared by all servers of a registry. Without one, the seed is in the file at `path` (mode
    0600), which is created on first use. Without either, the seed is in memory.
    """

    def __init__(self, path: Path | None = None, secret: bytes | None = None) -> None:
        self._path = path
        self._seed = hmac.digest(secret, _PURPOSE, "sha256") if secret is not None else None

    def seed(self) -> bytes:
        """The seed. Raises `Unavailable` if it cannot be stored."""
        if self._seed is None:
            self._seed = _new_seed() if self._path is None else _stored(self._path)
        return self._seed

    @cached_property
    def public(self) -> bytes:
        """The public key. Raises the errors of `seed`."""
        from adaptry.core.transparency import ed25519  # needed only to sign or verify

        return ed25519.public_key(self.seed())

    @property
    def is_made(self) -> bool:
        """Whether the seed exists, so that reading it creates none."""
        return self._seed is not None or (self._path is not None and self._path.exists())


def _new_seed() -> bytes:
    from adaptry.core.transparency import ed25519

    return os.urandom(ed25519.SEED_BYTES)


def _stored(path: Path) -> bytes:
    try:
        if not path.exists():
            _make(path)
        seed = path.read_bytes()
    except OSError as error:
        raise Unavailable(f"cannot store the audit log's key in {path.parent}: {error.strerror}") from error
    if len(seed) != len(_new_seed()):
        raise Unavailable(f"{path} is not the key of an audit log; put the right file back")
    return seed


def _make(path: Path) -> None:
    """Creates a complete file, unless another process has created it first."""
    draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, _new_seed())
        os.fsync(descriptor)
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        os.close(descriptor)
        draft.unlink()
