"""The head of a GGUF file as the gguf package writes it: a text is found after values of every type."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from adaptry.adapters.gguf_text import read_gguf_text

gguf = pytest.importorskip("gguf", reason="files are written by gguf: pip install gguf")


def test_a_text_is_found_behind_values_of_every_type(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "some.gguf", "llama")
    for size in (8, 16, 32, 64):
        getattr(writer, f"add_uint{size}")(f"some.uint{size}", 1)
        getattr(writer, f"add_int{size}")(f"some.int{size}", -1)
    writer.add_float32("some.float32", 0.5)
    writer.add_float64("some.float64", 0.5)
    writer.add_bool("some.bool", True)
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_array("some.texts", ["a", "sought", "c"])
    writer.add_string("some.text", "sought")
    writer.add_string("sought", "found")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert read_gguf_text(tmp_path / "some.gguf", "sought") == "found"
    assert read_gguf_text(tmp_path / "some.gguf", "general.architecture") == "llama"
    assert read_gguf_text(tmp_path / "some.gguf", "some.bool") is None
    assert read_gguf_text(tmp_path / "some.gguf", "other") is None


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


HEAD = b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60)
SOUGHT = entry(b"sought", 8, struct.pack("<Q", 5) + b"found")


@pytest.mark.parametrize(
    "data",
    [
        entry(b"texts", 9, struct.pack("<IQ", 8, 1 << 60)),
        entry(b"numbers", 9, struct.pack("<IQ", 0, 1 << 60)),
        entry(b"text", 8, struct.pack("<Q", (1 << 64) - 1)),
        entry(b"bytes", 9, struct.pack("<IQ", 0, 18 << 20) + bytes(16 << 20) + SOUGHT),
        SOUGHT[:-1],
        b"",
    ],
    ids=["texts", "numbers", "long text", "array over the limit", "cut text", "zeros"],
)
def test_a_file_that_claims_more_bytes_than_it_has_gives_no_text(tmp_path: Path, data: bytes) -> None:
    with (tmp_path / "some.gguf").open("wb") as file:
        file.write(HEAD + data)
        if data != SOUGHT[:-1]:
            file.truncate(8 << 30)  # zeros that take no space
    assert read_gguf_text(tmp_path / "some.gguf", "sought") is None


@pytest.mark.parametrize("data", [b"", b"GGUF", b"PK\x03\x04" * 20, b"GGUF" + b"\xff" * 40])
def test_files_of_another_kind_have_no_text(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "some.gguf").write_bytes(data)
    assert read_gguf_text(tmp_path / "some.gguf", "sought") is None
