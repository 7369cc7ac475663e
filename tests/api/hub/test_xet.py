"""Uploads by hf_xet in a separate process: the server reassembles every file, byte for byte."""

from __future__ import annotations

import random
import struct
from array import array
from pathlib import Path

import pytest

from adaptry_api.testing import Server

from .uploads import TONE, XET_CLIENT, create, has, run_client


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def floats(seed: int, count: int) -> bytes:
    drawn = random.Random(seed)
    return array("f", [drawn.gauss(0, 0.02) for _ in range(count)]).tobytes()


def bfloats(seed: int, count: int) -> bytes:
    whole = floats(seed, count)
    return b"".join(whole[at + 2 : at + 4] for at in range(0, len(whole), 4))


CONTENTS = {
    "noise": noise(1, 3_000_000),
    "zeros": bytes(5_000_001),
    "float32": floats(2, 300_000),
    "bfloat16": bfloats(3, 300_000),
    "text": b"a line of text, as a tokenizer has many\n" * 40_000,
    "three": b"abc",
    "lora": struct.pack("<Q", 2) + b"{}" + floats(4, 200_000) + bytes(800_000),
}


@pytest.fixture(autouse=True)
def adapter(server: Server) -> None:
    create(server)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_files_of_any_content_arrive_unchanged(server: Server, folder: Path) -> None:
    for name, content in CONTENTS.items():
        run = run_client(server, XET_CLIENT, TONE, "main", str(folder / name))
        assert (run.returncode, has(server, content)) == (0, True), (name, run.stderr)


def test_many_files_arrive_in_one_upload(server: Server, folder: Path) -> None:
    run = run_client(server, XET_CLIENT, TONE, "None", *[str(folder / name) for name in CONTENTS])
    assert run.returncode == 0, run.stderr
    assert all(has(server, content) for content in CONTENTS.values())


def test_a_file_of_several_xorbs_arrives(server: Server, tmp_path: Path) -> None:
    content = noise(5, 70_000_000) + bytes(10_000_000) + floats(6, 1_000_000)
    (tmp_path / "large").write_bytes(content)
    run = run_client(server, XET_CLIENT, TONE, "refs%2Fpr%2F1", str(tmp_path / "large"))
    assert run.returncode == 0, run.stderr
    assert has(server, content)


def test_files_sent_for_one_adapter_are_sent_again_for_another(server: Server, folder: Path) -> None:
    create(server, "acme/other")
    for name in (TONE, "acme/other"):
        assert run_client(server, XET_CLIENT, name, "main", str(folder / "noise")).returncode == 0
        assert has(server, CONTENTS["noise"], name)


def test_clients_show_why_a_file_was_refused(server: Server, folder: Path) -> None:
    run = run_client(server, XET_CLIENT, TONE, "main", f"{folder / 'noise'}={'0' * 64}")
    assert run.returncode != 0
    assert "they changed in transit" in run.stderr
    assert not has(server, CONTENTS["noise"])
