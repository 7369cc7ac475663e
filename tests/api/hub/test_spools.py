"""Spool files of uploads: complete or absent, limited, and swept if they are abandoned."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.core.errors import Busy, TooLarge
from adaptry.core.files import locks
from adaptry_api.hub import upload_spool
from adaptry_api.hub.upload_spool import (
    ABANDONED_SECONDS,
    FINISHED_SECONDS,
    IDLE_SECONDS,
    MAX_OPEN_SPOOLS,
    UploadSpools,
)


@pytest.fixture
def all_spools(tmp_path: Path) -> UploadSpools:
    return UploadSpools(tmp_path / "spools")


def present(all_spools: UploadSpools, id: str) -> bool:
    """Whether the spool's piece, made by `filled`, still exists."""
    with all_spools.open("acme", id) as spool:
        return spool.piece_path("piece").exists()


def filled(all_spools: UploadSpools, id: str, is_finished: bool = False) -> None:
    with all_spools.open("acme", id) as spool:
        assert spool.write("piece", [b"one", b"two"]) == 6
        if is_finished:
            spool.mark_finished()


def test_a_piece_is_stored_completely_and_can_be_replaced(all_spools: UploadSpools) -> None:
    filled(all_spools, "a")
    with all_spools.open("acme", "a") as spool:
        spool.write("piece", [b"three"])
        assert spool.piece_path("piece").read_bytes() == b"three"


def test_an_interrupted_piece_leaves_the_earlier_one(all_spools: UploadSpools, tmp_path: Path) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"half"
        raise ZeroDivisionError("the line")

    filled(all_spools, "a")
    with all_spools.open("acme", "a") as spool:
        with pytest.raises(ZeroDivisionError):
            spool.write("piece", breaking())
        assert spool.piece_path("piece").read_bytes() == b"onetwo"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["piece"]


def test_an_abandoned_spool_is_swept(all_spools: UploadSpools) -> None:
    filled(all_spools, "a")
    filled(all_spools, "b", is_finished=True)
    assert all_spools.sweep(time.time() + FINISHED_SECONDS - 60) == 0
    assert all_spools.sweep(time.time() + FINISHED_SECONDS + 60) == 1
    assert (present(all_spools, "a"), present(all_spools, "b")) == (True, False)
    assert all_spools.sweep(time.time() + IDLE_SECONDS + 60) == 2
    assert not present(all_spools, "a")


def test_a_spool_in_use_is_never_swept(all_spools: UploadSpools) -> None:
    with all_spools.open("acme", "a") as spool:
        spool.write("piece", [b"x"])
        assert all_spools.sweep(time.time() + 10 * IDLE_SECONDS) == 0
        assert spool.piece_path("piece").exists()


def test_a_namespace_has_a_limited_number_of_spools_and_finished_ones_make_room(
    all_spools: UploadSpools,
) -> None:
    for number in range(MAX_OPEN_SPOOLS):
        filled(all_spools, f"{number:02}", is_finished=number in (7, 9))
    os.utime(all_spools.folder / "acme" / "09", (1, 1))
    filled(all_spools, "one-more")
    assert not (all_spools.folder / "acme" / "09").exists()
    filled(all_spools, "and-another")
    with (
        pytest.raises(Busy, match="acme already has 64 uploads under way"),
        all_spools.open("acme", "too-many"),
    ):
        pass
    with all_spools.open("other", "first"):
        pass
    assert present(all_spools, "00")


def test_idle_spools_make_room_the_longest_idle_first(all_spools: UploadSpools) -> None:
    for number in range(MAX_OPEN_SPOOLS):
        filled(all_spools, f"{number:02}")
    before = time.time() - ABANDONED_SECONDS - 60
    for number, at in ((3, before), (5, before - 100)):
        os.utime(all_spools.folder / "acme" / f"{number:02}", (at, at))
    with all_spools.open("acme", "05"):  # it looks idle, but is in use
        os.utime(all_spools.folder / "acme" / "05", (before - 100, before - 100))
        filled(all_spools, "one-more")
    present = {path.name for path in (all_spools.folder / "acme").iterdir()}
    assert {"05", "one-more"} <= present
    assert "03" not in present


def test_the_size_of_a_spool_is_limited(all_spools: UploadSpools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_spool, "MAX_SPOOL_BYTES", 10)
    with all_spools.open("acme", "a") as spool:
        spool.write("first", [bytes(6)])
        with pytest.raises(TooLarge):
            spool.write("second", [bytes(3), bytes(3)])
        assert spool.write("second", [bytes(4)]) == 4


def test_many_threads_may_write_to_one_spool_while_it_is_swept(all_spools: UploadSpools) -> None:
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for _ in range(50):
                with all_spools.open("acme", "a") as spool:
                    spool.write(str(number), [b"x" * 100])
                    assert spool.piece_path(str(number)).stat().st_size == 100
        except BaseException as error:  # noqa: BLE001  the thread that made it would swallow it
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(100):  # bounded: each sweep considers every spool old, so the writers might never finish
        all_spools.sweep(time.time() + 10 * IDLE_SECONDS)
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_spool_may_be_opened_while_others_are_removed_at_every_moment(all_spools: UploadSpools) -> None:
    failures: list[BaseException] = []
    are_done = threading.Event()

    def open_often() -> None:
        try:
            for _ in range(300):
                with all_spools.open("acme", "a"):
                    pass
        except BaseException as error:  # noqa: BLE001  the thread that made it would swallow it
            failures.append(error)

    def remove_often() -> None:
        while not are_done.is_set():
            locks.remove_unlocked(all_spools.folder / "acme" / "a")

    removers = [threading.Thread(target=remove_often) for _ in range(2)]
    openers = [threading.Thread(target=open_often) for _ in range(2)]
    for thread in (*removers, *openers):
        thread.start()
    for thread in openers:
        thread.join()
    are_done.set()
    for thread in removers:
        thread.join()
    assert failures == []


def test_a_folder_created_again_while_its_removal_begins_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()

    def replaced_first(descriptor: int) -> bool:
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "piece").write_bytes(b"another upload's")
        return try_lock(descriptor)

    try_lock = locks.try_lock
    monkeypatch.setattr(locks, "try_lock", replaced_first)
    assert not locks.remove_unlocked(folder)
    assert (folder / "piece").read_bytes() == b"another upload's"
