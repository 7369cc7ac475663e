"""Work beside the one that waits: done in order, done at the end, and its failures told."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adaptry.core.files.background_io import BackgroundFlush, BackgroundHasher

LARGE = 1 << 20
"""More than is worth a thread."""


@pytest.fixture
def pipe() -> Iterator[int]:
    """What can be written to and never flushed."""
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
    with (tmp_path / "file").open("xb", buffering=0) as file, BackgroundFlush(file.fileno()) as flushing:
        for _ in range(40):
            flushing.add_written(file.write(data))
    assert (tmp_path / "file").read_bytes() == data * 40


def later_write(flushing: BackgroundFlush) -> None:
    for _ in range(1_000_000):  # enough for the thread that flushes to have had its turn, on any machine
        flushing.add_written(64 << 20)


@pytest.mark.parametrize("then", [later_write, BackgroundFlush.wait], ids=["a later write", "settling"])
def test_a_failed_flush_is_reported_once(pipe: int, then: Callable[[BackgroundFlush], None]) -> None:
    with BackgroundFlush(pipe) as flushing:
        flushing.add_written(64 << 20)
        with pytest.raises(OSError, match="Invalid argument"):
            then(flushing)


def test_a_failed_flush_is_reported_at_the_end(pipe: int) -> None:
    with pytest.raises(OSError, match="Invalid argument"), BackgroundFlush(pipe) as flushing:
        flushing.add_written(64 << 20)
