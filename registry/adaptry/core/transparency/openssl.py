"""Ed25519 with the OpenSSL library (1.1.1 or newer) that Python's own `hashlib` is linked with."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_char_p, c_int, c_size_t, c_void_p
from functools import cache

_ED25519 = 1087  # NID_ED25519, in openssl/obj_mac.h
_KEY, _SIGNATURE = 32, 64  # bytes
_POINTER_TO_SIZE = ctypes.POINTER(c_size_t)
_FUNCTIONS = {
    "EVP_PKEY_new_raw_private_key": (c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
    "EVP_PKEY_new_raw_public_key": (c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
    "EVP_PKEY_get_raw_public_key": (c_int, [c_void_p, c_char_p, _POINTER_TO_SIZE]),
    "EVP_PKEY_free": (None, [c_void_p]),
    "EVP_MD_CTX_new": (c_void_p, []),
    "EVP_MD_CTX_free": (None, [c_void_p]),
    "EVP_DigestSignInit": (c_int, [c_void_p] * 5),
    "EVP_DigestSign": (c_int, [c_void_p, c_char_p, _POINTER_TO_SIZE, c_char_p, c_size_t]),
    "EVP_DigestVerifyInit": (c_int, [c_void_p] * 5),
    "EVP_DigestVerify": (c_int, [c_void_p, c_char_p, c_size_t, c_char_p, c_size_t]),
    "ERR_clear_error": (None, []),
}


class _OpensslError(ValueError):
    """OpenSSL refused a key, or does not support Ed25519."""


class OpensslEd25519:
    """The functions of `ed25519`. Safe for many threads."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises `AttributeError` if the library lacks a function."""
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._library = library

    def public_key(self, seed: bytes) -> bytes:
        with self._key("private", seed) as key:
            made, size = ctypes.create_string_buffer(_KEY), c_size_t(_KEY)
            self._require(self._library.EVP_PKEY_get_raw_public_key(key, made, ctypes.byref(size)))
            return made.raw

    def sign(self, seed: bytes, message: bytes) -> bytes:
        with self._key("private", seed) as key, self._context() as context:
            made, size = ctypes.create_string_buffer(_SIGNATURE), c_size_t(_SIGNATURE)
            self._require(self._library.EVP_DigestSignInit(context, None, None, None, key))
            self._require(
                self._library.EVP_DigestSign(context, made, ctypes.byref(size), message, len(message))
            )
            return made.raw

    def is_signature(self, public: bytes, message: bytes, signature: bytes) -> bool:
        try:
            with self._key("public", public) as key, self._context() as context:
                self._require(self._library.EVP_DigestVerifyInit(context, None, None, None, key))
                found = self._library.EVP_DigestVerify(
                    context, signature, len(signature), message, len(message)
                )
                return bool(found == 1)
        except _OpensslError:
            return False
        finally:
            self._library.ERR_clear_error()  # otherwise the thread's next call would seem to fail

    @contextmanager
    def _key(self, kind: str, data: bytes) -> Iterator[int]:
        make = getattr(self._library, f"EVP_PKEY_new_raw_{kind}_key")
        key = self._require(make(_ED25519, None, data, len(data)))
        try:
            yield key
        finally:
            self._library.EVP_PKEY_free(key)

    @contextmanager
    def _context(self) -> Iterator[int]:
        context = self._require(self._library.EVP_MD_CTX_new())
        try:
            yield context
        finally:
            self._library.EVP_MD_CTX_free(context)

    def _require(self, result: int | None) -> int:
        if not result or result < 0:
            self._library.ERR_clear_error()
            raise _OpensslError
        return result


@cache
def find_ed25519() -> OpensslEd25519 | None:
    """None if Python was built without OpenSSL or with a copy inside it, or if OpenSSL does not support
    Ed25519.
    """
    try:
        import _hashlib

        found = OpensslEd25519(ctypes.CDLL(_hashlib.__file__))
        return found if _is_right(found) else None
    except (ImportError, AttributeError, OSError, _OpensslError):
        return None


def _is_right(found: OpensslEd25519) -> bool:
    """Whether the library reproduces the first example signature in RFC 8032 (section 7.1)."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    signature = found.sign(seed, b"")
    is_expected = signature.hex().startswith(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
    )
    return is_expected and found.public_key(seed) == public and found.is_signature(public, b"", signature)
