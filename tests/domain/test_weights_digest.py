"""The weights digest is the same for equal tensors, whether the file is stored or still arriving."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptry.adapters.header import read_header
from adaptry.adapters.streaming_digest import StreamingWeightsDigest
from adaptry.adapters.weights import weights_digest
from adaptry.core.digest import Digest
from adaptry.testing.samples import write_safetensors

TENSORS = {
    "a": ("F32", (2, 3), bytes(range(24))),
    "none": ("F16", (0, 4), b""),
    "b": ("U8", (5,), b"hello"),
    "scalar": ("F32", (), b"\x00\x01\x02\x03"),
    "last": ("F32", (0,), b""),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "file.safetensors"
    write_safetensors(path, TENSORS, {"format": "pt"})
    return path.read_bytes()


def at_rest(data: bytes) -> Digest:
    header = read_header(lambda offset, length: data[offset : offset + length], len(data), "file")
    return weights_digest(header.tensors, lambda offset, length: data[offset : offset + length])


def passed(data: bytes, cuts: list[int]) -> Digest | None:
    weights = StreamingWeightsDigest(len(data))
    edges = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(edges):
        weights.update(data[start:end])
    return weights.digest()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_weights_digest_does_not_depend_on_pieces(data: bytes, source: st.DataObject) -> None:
    cuts = source.draw(st.lists(st.integers(0, len(data)), max_size=12))
    assert passed(data, cuts) == at_rest(data)


def test_the_weights_digest_does_not_depend_on_tensor_order_or_metadata(data: bytes, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "other", dict(reversed(TENSORS.items())))
    other = (tmp_path / "other").read_bytes()
    assert other != data
    assert passed(other, []) == at_rest(other) == at_rest(data)


def test_a_file_without_tensors_has_a_weights_digest(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "empty", {})
    empty = (tmp_path / "empty").read_bytes()
    assert passed(empty, [5]) == at_rest(empty)


def test_small_tensors_between_large_ones_have_the_same_digest_on_many_threads(tmp_path: Path) -> None:
    small = {f"s{number}": ("U8", (3,), number.to_bytes(3, "little")) for number in range(700)}
    large = {f"l{number}": ("U8", (600_000,), bytes([number]) * 600_000) for number in range(3)}
    write_safetensors(tmp_path / "mixed", {**small, **large, "z": ("U8", (1,), b"z")})
    mixed = (tmp_path / "mixed").read_bytes()
    assert at_rest(mixed) == passed(mixed, [])


@pytest.mark.parametrize(
    "foreign",
    [b"", b"{}", b'{"r": 4}' * 9, b"# A model card\n" * 99, (9 << 20).to_bytes(8, "little") + b"{" * 90],
)
def test_a_file_that_is_not_safetensors_has_no_weights_digest(foreign: bytes) -> None:
    assert passed(foreign, [1, 8]) is None


def test_an_incomplete_file_has_no_weights_digest(data: bytes) -> None:
    weights = StreamingWeightsDigest(len(data))
    weights.update(data[:-1])
    assert weights.digest() is None
    weights.update(data[-1:])
    assert weights.digest() == at_rest(data)
