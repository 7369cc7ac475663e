"""The strict safetensors header reader accepts nothing that the reference parser refuses, within bounded
memory.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptry.adapters.header import read_header
from adaptry.core.errors import InvalidWeights

GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def file_of(header: object, data: bytes = b"\0" * 8, raw: bytes | None = None) -> bytes:
    text = json.dumps(header).encode() if raw is None else raw
    return struct.pack("<Q", len(text)) + text + data


def read(data: bytes):  # type: ignore[no-untyped-def]
    return read_header(lambda offset, length: data[offset : offset + length], len(data), "x.safetensors")


def test_a_header_gives_tensors_with_their_positions() -> None:
    data = file_of(GOOD | {"__metadata__": {"format": "pt"}})
    header = read(data)
    assert header.tensors["a"].shape == (2,)
    assert header.tensors["a"].start == header.data_start == len(data) - 8
    assert header.metadata == {"format": "pt"}


BAD = {
    "empty": b"",
    "short": b"\0" * 9,
    "length of zero": struct.pack("<Q", 0) + b"\0" * 20,
    "length past the end": struct.pack("<Q", 999) + b"{}",
    "length of 2**64 - 1": b"\xff" * 8 + b"{}" * 9,
    "leading space": file_of(None, raw=b" " + json.dumps(GOOD).encode()),
    "byte-order mark": file_of(None, raw=b"\xef\xbb\xbf" + json.dumps(GOOD).encode()),
    "not UTF-8": file_of(None, raw=b'{"\xff":1}'),
    "lone surrogate": file_of(None, raw=json.dumps({"\ud800": GOOD["a"]}).encode()),
    "trailing JSON": file_of(None, raw=json.dumps(GOOD).encode() + b"{}"),
    "deep": file_of(None, raw=b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "duplicate name": file_of(None, raw=b'{"a":%s,"a":%s}' % ((json.dumps(GOOD["a"]).encode(),) * 2)),
    "escaped duplicate": file_of(
        None, raw=b'{"a":%s,"\\u0061":%s}' % ((json.dumps(GOOD["a"]).encode(),) * 2)
    ),
    "duplicate field": file_of(
        None, raw=b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    ),
    "unknown field": file_of({"a": GOOD["a"] | {"x": 1}}),
    "hole": file_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}),
    "overlap": file_of(GOOD | {"b": GOOD["a"]}),
    "reversed": file_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}),
    "trailing bytes": file_of(GOOD, data=b"\0" * 9),
    "cut short": file_of(GOOD, data=b"\0" * 7),
    "overflow": file_of({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]}}),
    "zero beside huge": file_of(
        {"a": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}}, data=b""
    ),
    "rank": file_of({"a": {"dtype": "F32", "shape": [1] * 1000 + [2], "data_offsets": [0, 8]}}),
    "negative": file_of({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}),
    "float dim": file_of({"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}),
    "text dim": file_of({"a": {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]}}),
    "bool dim": file_of({"a": {"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]}}),
    "dtype": file_of({"a": {"dtype": "f32", "shape": [2], "data_offsets": [0, 8]}}),
    "path in name": file_of({"../a": GOOD["a"]}),
    "newline in name": file_of({"a\n": GOOD["a"]}),
    "long name": file_of({"a" * 513: GOOD["a"]}),
    "metadata of numbers": file_of(GOOD | {"__metadata__": {"x": 1}}),
    "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
}


@pytest.mark.parametrize("name", BAD)
def test_an_inconsistent_header_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(InvalidWeights, match=r"x\.safetensors"):
        read(BAD[name])


def test_a_million_empty_tensors_are_refused_by_their_number() -> None:
    bomb = {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(200_000)}
    with pytest.raises(InvalidWeights, match="at most"):
        read(file_of(bomb, data=b""))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid file with a few bytes changed, removed or repeated."""
    data = bytearray(
        file_of(GOOD | {"b": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [8, 12]}}, b"\0" * 12)
    )
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.integers(0, 2)):
            case 0:
                data[at] = draw(st.integers(0, 255))
            case 1:
                del data[at]
            case _:
                data[at:at] = draw(st.sampled_from([b"0", b",", b'"', b"{", b"1e3", b"null", b" "]))
        if not data:
            break
    return bytes(data)


@settings(max_examples=2000, deadline=None)
@given(mutated())
def test_every_accepted_header_is_accepted_by_the_reference_parser(data: bytes) -> None:
    safetensors = pytest.importorskip("safetensors")
    try:
        header = read(data)
    except InvalidWeights:
        return
    assert {name for name, _ in safetensors.deserialize(data)} == set(header.tensors)


def test_a_file_written_by_the_reference_library_is_read_as_it_reads_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = {"x": torch.zeros(2, 3, dtype=torch.bfloat16), "y": torch.ones(4), "z": torch.zeros(0, 5)}
    save_file(tensors, tmp_path / "t.safetensors", metadata={"b": "1", "a": "2"})
    header = read((tmp_path / "t.safetensors").read_bytes())
    assert {name: info.shape for name, info in header.tensors.items()} == {
        "x": (2, 3),
        "y": (4,),
        "z": (0, 5),
    }
