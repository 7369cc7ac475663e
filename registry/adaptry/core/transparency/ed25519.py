"""Ed25519 signatures (RFC 8032), by the OpenSSL that Python itself uses, or else by the cryptography package.

The package has its own OpenSSL, which would take 10 MB of a server's memory. It comes with the extras
`audit` and `server`, for a Python whose OpenSSL cannot be called.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from adaptry.core.errors import MissingDependency
from adaptry.core.transparency import openssl

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEED_BYTES = 32


def is_available() -> bool:
    """Whether signatures can be made and verified."""
    return openssl.find_ed25519() is not None or importlib.util.find_spec("cryptography") is not None


def public_key(seed: bytes) -> bytes:
    """The public key, 32 bytes, of a secret seed of 32 bytes. Raises `MissingDependency`."""
    own = openssl.find_ed25519()
    return own.public_key(seed) if own else _private(seed).public_key().public_bytes_raw()


def sign(seed: bytes, message: bytes) -> bytes:
    """A signature of 64 bytes. Raises `MissingDependency`."""
    own = openssl.find_ed25519()
    return own.sign(seed, message) if own else _private(seed).sign(message)


def is_signature(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the holder of the public key's seed signed the message. Raises `MissingDependency`."""
    if own := openssl.find_ed25519():
        return own.is_signature(public, message, signature)
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise _missing() from error
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):  # not signed with this key, or not a key
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
