"""Folders that appear atomically: complete or not at all."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.output_folder import output_folder
from adaptry.core.errors import Conflict, StorageFull, Unavailable
from adaptry.core.files.durable import write_error
from adaptry.operations import transfer
from adaptry.storage.local import LocalRegistry

FILLING = """
import sys, pathlib
from adaptry.adapters.output_folder import output_folder
with output_folder(pathlib.Path(sys.argv[1])) as place:
    (place / "half").write_text("half")
    print("filling", flush=True)
    sys.stdin.read()
"""


def filling(target: Path) -> subprocess.Popen[str]:
    """A process that stops in the middle of filling `target`."""
    process = subprocess.Popen(
        [sys.executable, "-c", FILLING, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "filling\n"
    return process


def test_a_folder_appears_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "down" / "tone"

    with output_folder(target) as place:
        (place / "weights").write_text("all of them")
        assert not target.exists()

    assert (target / "weights").read_text() == "all of them"
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_write_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), output_folder(tmp_path / "tone") as place:
        (place / "half").write_text("half")
        _ = 1 / 0

    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot lock a folder")
def test_files_of_killed_processes_are_removed_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    target = tmp_path / "tone"
    living, dead = filling(target), filling(target)
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    assert not target.exists()
    assert len(list(tmp_path.iterdir())) == 2

    with output_folder(target) as place:
        (place / "weights").write_text("mine")

    assert (target / "weights").read_text() == "mine"
    assert len(list(tmp_path.glob(".tone.*"))) == 1
    living.kill()
    living.communicate()


def test_the_second_of_two_concurrent_writers_gets_a_conflict(tmp_path: Path) -> None:
    target = tmp_path / "tone"

    with pytest.raises(Conflict), output_folder(target) as late:
        (late / "adapter_config.json").write_text("late")
        with output_folder(target) as early:
            (early / "adapter_config.json").write_text("early")

    assert (target / "adapter_config.json").read_text() == "early"


def test_an_empty_folder_counts_as_absent(tmp_path: Path) -> None:
    (tmp_path / "tone").mkdir()

    with output_folder(tmp_path / "tone") as place:
        (place / "weights").write_text("here")

    assert (tmp_path / "tone" / "weights").exists()


def test_a_file_in_the_way_is_a_conflict(tmp_path: Path) -> None:
    (tmp_path / "tone").write_text("a file")

    with pytest.raises(Conflict, match="not a folder"), output_folder(tmp_path / "tone", replace=True):
        pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, if this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_reported_and_no_file_is_left(
    registry: LocalRegistry, large: Path, small_disk: Path
) -> None:
    transfer.push(registry, open_dir(large), "acme/tone")

    with pytest.raises(StorageFull, match="no space left"):
        transfer.pull(registry, "acme/tone", small_disk / "tone")

    assert list(small_disk.iterdir()) == []


def test_errors_of_the_file_system_are_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Unavailable, match="cannot write"), output_folder(tmp_path / "file" / "tone"):
        pass
    assert isinstance(write_error(OSError(28, "No space left on device"), tmp_path), StorageFull)
