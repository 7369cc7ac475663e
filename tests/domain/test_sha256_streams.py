"""Streams that are hashed together have the digests of hashlib, however their bytes are divided."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptry.core.sha256_streams import Sha256Stream, can_interleave, update_together

NIST = {  # FIPS 180-4 examples, and the SHA-256 vectors that NIST publishes beside them
    b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    b"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq":
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    b"a" * 1_000_000: "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
    b"\xbd": "68325720aabd7c82f30f554b313d0570c95accbb7dc4b5aae11204c08ffe732b",
    b"\xc9\x8c\x8e\x55": "7abc22c0ae5af26ce93dbb94433a0e0b2e119d014f8e7f65bd56c61ccccd9504",
    bytes(55): "02779466cdec163811d078815c633f21901413081449002f24aa3e80f0b88ef7",
    bytes(56): "d4817aa5497628e7c77e6b606107042bbba3130888c5f47a375e6179be789fbb",
    bytes(64): "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b",
}  # fmt: skip

DATA = random.Random(256).randbytes(4096)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("data", NIST, ids=lambda data: f"{len(data)}-bytes")
def test_the_examples_of_nist_hold_in_every_lane(data: bytes, count: int) -> None:
    streams = [Sha256Stream() for _ in range(count)]
    update_together([(stream, data) for stream in streams])
    assert {stream.hexdigest() for stream in streams} == {NIST[data]}


def test_every_length_and_offset_within_some_blocks_is_hashed() -> None:
    for length in range(200):
        pieces = [memoryview(DATA)[offset : offset + length] for offset in (0, 1, 17, 64)]
        streams = [Sha256Stream() for _ in pieces]
        update_together(list(zip(streams, pieces, strict=True)))
        assert [stream.digest() for stream in streams] == [hashlib.sha256(one).digest() for one in pieces]


@settings(deadline=None, max_examples=2000)
@given(
    rounds=st.lists(
        st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 400)), min_size=6, max_size=6), max_size=8
    ),
    chosen=st.lists(st.sets(st.integers(0, 5)), min_size=8, max_size=8),
)
def test_any_pieces_of_any_streams_give_their_digests(
    rounds: list[list[tuple[int, int]]], chosen: list[set[int]]
) -> None:
    """Each round updates a chosen subset of six streams, each with a different piece."""
    streams, wanted = [Sha256Stream() for _ in range(6)], [hashlib.sha256() for _ in range(6)]
    for pieces, members in zip(rounds, chosen, strict=False):
        given_pieces = {n: DATA[pieces[n][0] : sum(pieces[n])] for n in members}
        update_together([(streams[n], piece) for n, piece in given_pieces.items()])
        for n, piece in given_pieces.items():
            wanted[n].update(piece)
            assert streams[n].digest() == wanted[n].digest()  # also in the middle
    assert [stream.hexdigest() for stream in streams] == [each.hexdigest() for each in wanted]


def test_threads_hash_streams_of_their_own_at_the_same_time() -> None:
    def digests(seed: int) -> bool:
        chance = random.Random(seed)
        pieces = [chance.randbytes(chance.randrange(300_000)) for _ in range(3)]
        streams = [Sha256Stream() for _ in pieces]
        update_together(list(zip(streams, pieces, strict=True)))
        return [each.digest() for each in streams] == [hashlib.sha256(one).digest() for one in pieces]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(digests, range(100)))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_every_kind_are_hashed_and_can_change_afterwards(
    kind: type[bytes] | type[bytearray] | type[memoryview],
) -> None:
    stream, data = Sha256Stream(), bytearray(DATA)
    stream.update(kind(data))
    assert stream.digest() == hashlib.sha256(DATA).digest()
    data += b"more"  # a buffer that is still in use cannot be resized


def test_bytes_that_are_not_contiguous_are_refused() -> None:
    stream = Sha256Stream()
    with pytest.raises(BufferError):
        stream.update(memoryview(DATA)[::2])
    assert stream.digest() == hashlib.sha256().digest()


def test_one_stream_cannot_take_two_pieces_at_once() -> None:
    stream = Sha256Stream()
    with pytest.raises(ValueError, match="its own stream"):
        update_together([(stream, b"a"), (stream, b"b")])


def test_without_llvmlite_the_digests_are_the_same() -> None:
    program = """
import sys, hashlib
sys.modules["llvmlite"] = None
from adaptry.core.sha256_streams import Sha256Stream, can_interleave, update_together
streams = [Sha256Stream(), Sha256Stream()]
update_together([(streams[0], b"a" * 1000), (streams[1], b"b")])
assert [each.digest() for each in streams] == [hashlib.sha256(it).digest() for it in (b"a" * 1000, b"b")]
print(can_interleave())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="reads the processor's features from Linux")
def test_a_processor_with_the_instructions_uses_them() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    assert can_interleave() == ("sha_ni" in flags and "ssse3" in flags)
