"""Merkle trees, Ed25519 and signed checkpoints, compared with the RFCs and with OpenSSL."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptry.core.errors import Invalid
from adaptry.core.transparency import ed25519, merkle, openssl
from adaptry.core.transparency.checkpoint import LogCheckpoint, VerifierKey

SEED = bytes(range(32))
NAME = "adaptry/audit/0123456789abcdef"
DER_PREFIX = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: the prefix of a public key
RFC_8032 = (  # section 7.1: seed, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
)
RFC_6962_LEAVES = tuple(
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
)
RFC_6962_ROOT = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
"""Of the test data of Certificate Transparency's own implementations."""


def reference_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + reference_root(leaves[:k]) + reference_root(leaves[k:])).digest()


def data(count: int) -> list[bytes]:
    return [f"entry {number}".encode() for number in range(count)]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_signatures_are_those_of_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    assert ed25519.public_key(bytes.fromhex(seed)).hex() == public
    assert ed25519.sign(bytes.fromhex(seed), bytes.fromhex(message)).hex() == signature
    assert ed25519.is_signature(bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature))


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300))
def test_pythons_own_openssl_signs_as_the_cryptography_package_does(seed: bytes, message: bytes) -> None:
    own = openssl.find_ed25519()
    assert own is not None, "this Python has no OpenSSL that can be called"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(openssl, "find_ed25519", lambda: None)
        public, signature = ed25519.public_key(seed), ed25519.sign(seed, message)
        assert ed25519.is_signature(public, message, own.sign(seed, message))
    assert own.public_key(seed) == public
    assert own.sign(seed, message) == signature
    assert own.is_signature(public, message, signature)
    assert not own.is_signature(public, message + b"!", signature)
    assert not own.is_signature(public, message, signature[:-1])
    assert not own.is_signature(public[:-1], message, signature)


@pytest.mark.parametrize("place", [0, 31, 32, 63])
def test_a_signature_with_a_changed_bit_is_invalid(place: int) -> None:
    signature = bytearray(ed25519.sign(SEED, b"text"))
    signature[place] ^= 1
    assert not ed25519.is_signature(ed25519.public_key(SEED), b"text", bytes(signature))


def test_roots_are_those_of_certificate_transparency() -> None:
    assert merkle.root_of(map(merkle.leaf_hash, RFC_6962_LEAVES)).hex() == RFC_6962_ROOT


@given(st.integers(1, 70), st.data())
def test_every_proof_leads_to_the_root_and_to_no_other(size: int, draw: st.DataObject) -> None:
    entries = data(size)
    leaves = [merkle.leaf_hash(one) for one in entries]
    root, other = reference_root(entries), bytes(32)
    assert merkle.root_of(leaves) == root

    def subtree(start: int, end: int) -> bytes:
        return reference_root(entries[start:end])

    index, old = draw.draw(st.integers(0, size - 1)), draw.draw(st.integers(1, size))
    path = merkle.inclusion_proof(index, size, subtree)
    proof = merkle.consistency_proof(old, size, subtree)

    assert merkle.root_from_inclusion(leaves[index], index, size, path) == root
    assert merkle.root_from_inclusion(other, index, size, path) != root
    assert merkle.is_consistent(old, reference_root(entries[:old]), size, root, proof)
    assert not merkle.is_consistent(old, other, size, root, proof)
    assert not merkle.is_consistent(old, reference_root(entries[:old]), size, other, proof)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL's program is the other implementation")
def test_openssl_verifies_a_checkpoint_by_its_signed_note_alone(tmp_path: Path) -> None:
    """A note has the form of c2sp.org/signed-note: the text, an empty line, and a line for each signature."""
    note = LogCheckpoint(NAME, 3, merkle.root_of(map(merkle.leaf_hash, data(3)))).sign(SEED)
    key = str(VerifierKey(NAME, ed25519.public_key(SEED)))

    text, _, line = note.partition("\n\n")
    name, key_hash, encoded = key.split("+", 2)
    public = base64.b64decode(encoded)
    dash, signer, signature = line.split()
    signed = base64.b64decode(signature)
    assert (dash, signer, signed[:4].hex(), public[:1]) == ("—", name, key_hash, b"\1")
    (tmp_path / "key.der").write_bytes(DER_PREFIX + public[1:])
    (tmp_path / "text").write_text(text + "\n")
    (tmp_path / "signature").write_bytes(signed[4:])
    command = "openssl pkeyutl -verify -rawin -pubin -inkey key.der -keyform DER -in text -sigfile signature"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    assert text.split("\n") == [NAME, "3", base64.b64encode(reference_root(data(3))).decode()]


def test_a_written_key_and_checkpoint_are_read_back() -> None:
    key = VerifierKey(NAME, ed25519.public_key(SEED))
    checkpoint = LogCheckpoint(NAME, 12, bytes(32))
    assert VerifierKey.parse(str(key)) == key
    assert LogCheckpoint.verify(checkpoint.sign(SEED), key) == checkpoint


@pytest.mark.parametrize(
    "note",
    [
        "",
        "a\n1\n",
        f"{NAME}\n01\n{base64.b64encode(bytes(32)).decode()}\n\n— {NAME} AAAA\n",
        f"{NAME}\n1\nAAAA\n\n— {NAME} AAAA\n",
        f"{NAME}\n1\n{base64.b64encode(bytes(32)).decode()}\n",
        LogCheckpoint(NAME, 1, bytes(32)).sign(SEED) + "more\n",
    ],
)
def test_a_text_that_is_not_a_checkpoint_is_invalid(note: str) -> None:
    with pytest.raises(Invalid):
        LogCheckpoint.verify(note, VerifierKey(NAME, ed25519.public_key(SEED)))


def test_a_signature_is_invalid_for_another_key_or_text() -> None:
    note = LogCheckpoint(NAME, 12, bytes(32)).sign(SEED)
    for text, key in (
        (note, VerifierKey(NAME, ed25519.public_key(bytes(32)))),
        (note, VerifierKey("other", ed25519.public_key(SEED))),
        (note.replace("\n12\n", "\n13\n"), VerifierKey(NAME, ed25519.public_key(SEED))),
    ):
        with pytest.raises(Invalid, match="no valid signature"):
            LogCheckpoint.verify(text, key)
