"""Ed25519 signatures (RFC 8032), by the cryptography package.

The package comes with the extras `audit` and `server`, so that installations that never sign or verify a
checkpoint need no compiled library.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from adaptry.core.errors import MissingDependency

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEED_BYTES = 32


def is_available() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("cryptography") is not None


def public_key(seed: bytes) -> bytes:
    """The public key, 32 bytes, of a secret seed of 32 bytes. Raises `MissingDependency`."""
    return _private(seed).public_key().public_bytes_raw()


def sign(seed: bytes, message: bytes) -> bytes:
    """A signature of 64 bytes. Raises `MissingDependency`."""
    return _private(seed).sign(message)


def is_signature(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the holder of the public key's seed signed the message. Raises `MissingDependency`."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise _missing() from error
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):  # not signed with this key; or no key at all
        return False
    return True


def _private(seed: bytes) -> Ed25519PrivateKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise _missing() from error
    return Ed25519PrivateKey.from_private_bytes(seed)


def _missing() -> MissingDependency:
    return MissingDependency(
        "checkpoints of the audit log are signed with Ed25519: pip install 'adaptry[audit]'"
    )
