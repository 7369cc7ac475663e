"""Inspection of weights while they arrive: the result equals that of the complete file, or there is none if
it is late.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.inspection import growing_file
from adaptry.adapters.inspection.growing_file import GrowingFileInspection
from adaptry.adapters.inspection.inspector import Inspector
from adaptry.testing.samples import tiny_lora

WEIGHTS = "adapter_model.safetensors"


@contextmanager
def growing(folder: Path, thread: ThreadPoolExecutor) -> Iterator[GrowingFileInspection]:
    """The inspection of a file that has arrived completely."""
    adapter = open_dir(tiny_lora(folder))
    descriptor = os.open(folder / WEIGHTS, os.O_RDONLY)
    try:
        with closing(Inspector()) as inspector:
            made = GrowingFileInspection(inspector, thread, descriptor, "acme")
            made.advance(adapter.header, (folder / WEIGHTS).stat().st_size)
            yield made
    finally:
        os.close(descriptor)


def test_a_file_that_arrived_is_inspected_like_one_that_is_stored(tmp_path: Path) -> None:
    adapter = open_dir(tiny_lora(tmp_path))
    with ThreadPoolExecutor(1) as thread, growing(tmp_path, thread) as arriving:
        found = arriving.result()
    assert found is not None
    assert found.tensors.keys() == adapter.header.tensors.keys()


def test_an_inspection_that_waits_for_its_turn_does_not_delay_the_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing_file, "_LAST_SECONDS", 0.0)
    busy = Event()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(busy.wait)
        try:
            with growing(tmp_path, thread) as waiting:
                assert waiting.result() is None
        finally:
            busy.set()


def test_a_cancelled_inspection_has_no_result(tmp_path: Path) -> None:
    busy = Event()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(busy.wait)
        try:
            with growing(tmp_path, thread) as interrupted:
                interrupted.cancel()
                assert interrupted.result() is None
        finally:
            busy.set()
