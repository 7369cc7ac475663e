"""Hashing on a second thread, and early writes: in order, complete at the end, with every error raised."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.core.files.background_io import BackgroundHasher
from adaptry.core.files.early_writeback import EarlyWriteback

LARGE = 1 << 20
"""More than is worth a thread."""


@pytest.fixture
def pipe() -> Iterator[int]:
    """A pipe, which can be written to but never flushed."""
    reading, writing = os.pipe()
    yield writing
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("sizes", [[], [1], [LARGE] * 20, [LARGE, 3, LARGE, 5]])
def test_the_thread_gets_every_piece_in_order(sizes: list[int]) -> None:
    pieces = [os.urandom(size) for size in sizes]
    hasher = hashlib.sha256()
    with BackgroundHasher(hasher.update) as beside:
        for piece in pieces:
            beside.update(memoryview(piece))
    assert hasher.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


@pytest.mark.parametrize("size", [1, LARGE])
def test_an_error_in_the_thread_is_raised_at_the_end(size: int) -> None:
    def fail(piece: memoryview) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), BackgroundHasher(fail) as beside:
        beside.update(memoryview(bytes(size)))


def test_an_error_of_the_block_is_not_hidden_by_one_of_the_thread() -> None:
    def fail(piece: memoryview) -> None:
        raise ZeroDivisionError

    with pytest.raises(KeyError), BackgroundHasher(fail) as beside:
        beside.update(memoryview(bytes(LARGE)))
        raise KeyError


def test_a_file_has_the_written_bytes(tmp_path: Path) -> None:
    data = os.urandom(LARGE)
    with (tmp_path / "file").open("xb", buffering=0) as file:
        writeback = EarlyWriteback(file.fileno())
        for _ in range(40):
            writeback.add_written(file.write(data))
    assert (tmp_path / "file").read_bytes() == data * 40


def test_a_file_that_cannot_be_written_early_is_left_to_the_last_flush(pipe: int) -> None:
    EarlyWriteback(pipe).add_written(64 << 20)

    with pytest.raises(OSError, match="Invalid argument"):
        os.fsync(pipe)
