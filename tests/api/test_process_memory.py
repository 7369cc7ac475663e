"""A server returns freed memory to the system."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry_api.process_memory import FreedMemory, resident_bytes

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
_BLOCK, _BLOCKS = 100_000, 600  # less than glibc allocates with mmap, which it returns when it is freed


def test_memory_that_was_freed_between_other_blocks_returns_to_the_system() -> None:
    memory = FreedMemory()
    memory.return_to_system()
    blocks = [bytes(_BLOCK) for _ in range(_BLOCKS)]
    between = [bytes(5_000) for _ in range(_BLOCKS)]
    grown = resident_bytes()
    last = blocks.pop()
    blocks.clear()
    memory.return_to_system()
    assert grown - resident_bytes() > _BLOCK * _BLOCKS // 2
    assert last and between


def test_memory_that_is_freed_after_a_return_at_the_peak_is_returned_too() -> None:
    memory = FreedMemory()
    blocks = [bytes(_BLOCK) for _ in range(_BLOCKS)]
    between = [bytes(5_000) for _ in range(_BLOCKS)]
    memory.return_to_system()
    grown = resident_bytes()
    last = blocks.pop()
    blocks.clear()
    memory.return_to_system()
    assert grown - resident_bytes() > _BLOCK * _BLOCKS // 2
    assert last and between


def test_a_process_that_has_freed_little_keeps_its_memory() -> None:
    blocks = [bytes(_BLOCK) for _ in range(_BLOCKS)]
    between = [bytes(5_000) for _ in range(_BLOCKS)]
    memory = FreedMemory()
    memory.return_to_system()  # returns the memory that is already free
    del blocks[-20:-1]
    before = resident_bytes()
    memory.return_to_system()
    assert before - resident_bytes() < _BLOCK * 10
    assert blocks and between
