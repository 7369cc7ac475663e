"""Seals positions of a search for readers who may not see every version.

A page of a search may end at a version that was not tested yet, so its position in an order, such as the
value of a metric, can be of a version that the reader may not see. A reader could also forge a position, and
learn hidden values from the place where the search continues. Positions are sealed with AES-SIV (RFC 5297)
and a key in the catalog, so that every server process can open those that another sealed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from adaptry.core.errors import MissingDependency
from adaptry.storage.catalog import cursors, epochs
from adaptry.storage.catalog.database import Reads

_MARK = "~"


class CursorSeal:
    """`about` identifies the search: a position of one search cannot be opened in another."""

    def __init__(self, tx: Reads) -> None:
        """Raises `MissingDependency` without the package cryptography, which the extra `server` has."""
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESSIV
        except ImportError:
            raise MissingDependency(
                "searching with limited rights needs the package cryptography: pip install 'adaptry[server]'"
            ) from None
        secret = bytes.fromhex(epochs.secret(tx))
        self._cipher = AESSIV(hashlib.blake2b(b"search cursors", key=secret, digest_size=64).digest())

    def seal(self, text: str, about: str) -> str:
        sealed = self._cipher.encrypt(text.encode(), [about.encode("utf-8", "surrogatepass")])
        return _MARK + base64.urlsafe_b64encode(sealed).decode()

    def open(self, text: str, about: str) -> str:
        """Decrypts a sealed cursor. Raises `Invalid` for a text that was not sealed here for this search."""
        from cryptography.exceptions import InvalidTag

        try:
            sealed = base64.b64decode(text.removeprefix(_MARK), altchars=b"-_", validate=True)
            return self._cipher.decrypt(sealed, [about.encode("utf-8", "surrogatepass")]).decode()
        except (binascii.Error, ValueError, InvalidTag):
            raise cursors.foreign() from None
