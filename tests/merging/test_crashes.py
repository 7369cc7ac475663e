"""Merges that are killed, interrupted, out of disk space or without their base leave a complete folder or
none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.merge import MergeOptions, MergeSource, merge
from adaptry.compute.merging.record import MergeRecord
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.errors import InvalidWeights, NotFound, StorageFull, Unavailable
from adaptry.core.progress import Progress, no_progress
from adaptry.testing.samples import tiny_base, tiny_lora

HALTING = Path(__file__).with_name("paused_merge.py")
WIDE = 5632


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "base", hidden=64, shards=3)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return tiny_lora(tmp_path / "tone", hidden=64)


def merged(
    base: Path, adapter: Path, target: Path, how: MergeOptions | None = None, progress: Progress = no_progress
) -> MergeRecord:
    recipe = MergeRecipe(base=str(base), inputs=(RecipeInput(source=str(adapter)),))
    source = MergeSource(WeightedAdapter(open_dir(adapter), 1.0, str(adapter)))
    return merge(recipe, open_checkpoint(base), [source], target, how or MergeOptions(), progress)


def halted(
    base: Path, adapter: Path, target: Path, share: float = 0.5, weight: float = 1.0
) -> subprocess.Popen[str]:
    """A process whose merge has written the share `share` of its bytes, and waits."""
    words = [sys.executable, HALTING, base, adapter, weight, target, share]
    process = subprocess.Popen(
        [str(word) for word in words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def assert_whole(folder: Path) -> MergeRecord:
    """Asserts that the weights in `folder` are those of its record."""
    record = MergeRecord.model_validate_json((folder / "adaptry_merge.json").read_text())
    assert record.files
    for entry in record.files:
        assert hashlib.sha256((folder / entry.path).read_bytes()).hexdigest() == entry.sha256.hex
    return record


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["early", "half-way", "late"])
def test_a_killed_merge_leaves_no_result_and_the_next_one_cleans_up(
    share: float, base: Path, adapter: Path, tmp_path: Path
) -> None:
    target = tmp_path / "deep" / "merged"
    with halted(base, adapter, target, share) as process:
        process.kill()
        process.communicate()
    assert not target.exists()
    assert len(list(target.parent.iterdir())) == 1

    merged(base, adapter, target)

    assert_whole(target)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["early", "half-way", "late"])
def test_a_merge_that_is_interrupted_leaves_nothing(
    share: float, base: Path, adapter: Path, tmp_path: Path
) -> None:
    target = tmp_path / "deep" / "merged"
    with halted(base, adapter, target, share) as process:
        process.send_signal(signal.SIGINT)
        _, story = process.communicate("go on\n")
    assert (process.returncode, story) == (1, "interrupted\n")
    assert list(target.parent.iterdir()) == []


def large_base(folder: Path) -> Path:
    """A base of 317 MB in a sparse file, which takes as long to merge as any other but no disk space."""
    tiny_base(folder, layers=1)
    names = [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(5)]
    size = 2 * WIDE * WIDE
    header = json.dumps(
        {
            name: {
                "dtype": "BF16",
                "shape": [WIDE, WIDE],
                "data_offsets": [number * size, (number + 1) * size],
            }
            for number, name in enumerate(names)
        }
    ).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + len(names) * size)
    return folder


def begun(words: list[str], target: Path) -> subprocess.Popen[bytes]:
    """A process of the command line that is writing weights of the folder that will become `target`."""
    process = subprocess.Popen([sys.executable, "-m", "adaptry_cli", *words], stderr=subprocess.DEVNULL)
    while not any(_holds_data(path) for path in target.parent.glob(f".{target.name}.*/model.safetensors")):
        assert process.poll() is None, "it ended before it was seen writing"
        time.sleep(0.001)
    return process


def _holds_data(path: Path) -> bool:
    """Whether a first weight has arrived: the file has its full size from the start, filled with zeros."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        file.seek(8 + length)
        return any(file.read(1024))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_the_command_ended_while_it_writes_a_large_base_leaves_no_target(
    how: signal.Signals, tmp_path: Path
) -> None:
    base = large_base(tmp_path / "base")
    adapter = tiny_lora(tmp_path / "tone", hidden=WIDE, layers=5, targets=("q_proj",))
    target = tmp_path / "place" / "merged"
    target.parent.mkdir()
    words = ["merge", "--base", str(base), str(adapter), "-o", str(target)]
    with begun(words, target) as process:
        process.send_signal(how)
        process.wait()

    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert not target.exists()
    assert len(list(target.parent.iterdir())) == (0 if how == signal.SIGINT else 1)
    subprocess.run([sys.executable, "-m", "adaptry_cli", *words], check=True, capture_output=True)
    assert list(target.parent.iterdir()) == [target]


def test_one_of_two_merges_into_one_folder_wins_and_nothing_is_mixed(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    target = tmp_path / "place" / "merged"
    with (
        halted(base, adapter, target, weight=1.0) as first,
        halted(base, adapter, target, weight=2.0) as second,
    ):
        _, first_story = first.communicate("go on\n")
        _, second_story = second.communicate("go on\n")

    assert (first.returncode, second.returncode) == (0, 1), first_story
    assert second_story.startswith("conflict: ") and "choose another place" in second_story
    assert assert_whole(target).inputs[0].weight == 1.0
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("hashing", [True, False], ids=["hashed", "not hashed"])
def test_a_base_that_is_truncated_during_reading_is_reported(
    hashing: bool, base: Path, adapter: Path, tmp_path: Path
) -> None:
    def cut(*_: object) -> None:
        for shard in base.glob("*.safetensors"):
            os.truncate(shard, shard.stat().st_size // 4)

    with pytest.raises(
        InvalidWeights, match="became shorter while it was read; is something still writing it"
    ):
        merged(base, adapter, tmp_path / "place" / "merged", MergeOptions(hashing=hashing, threads=1), cut)

    assert list((tmp_path / "place").iterdir()) == []


def test_a_base_deleted_after_planning_is_named(base: Path, adapter: Path, tmp_path: Path) -> None:
    recipe = MergeRecipe(base=str(base), inputs=(RecipeInput(source=str(adapter)),))
    checkpoint = open_checkpoint(base)
    shutil.rmtree(base)

    with pytest.raises(NotFound, match=r"no file at .*model-00001-of-00003\.safetensors"):
        merge(
            recipe,
            checkpoint,
            [MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "tone"))],
            tmp_path / "place" / "merged",
        )

    assert not (tmp_path / "place").exists()


def test_an_adapter_that_is_truncated_during_reading_is_reported(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    weights = adapter / "adapter_model.safetensors"

    def cut(*_: object) -> None:
        os.truncate(weights, 2048)

    with pytest.raises(InvalidWeights, match=r"the adapter's .* became shorter while it was read"):
        merged(base, adapter, tmp_path / "place" / "merged", MergeOptions(threads=1), cut)

    assert list((tmp_path / "place").iterdir()) == []


def mounted(place: Path, options: str) -> Iterator[Path]:
    """Mounts a separate file system at `place`, if this user may do so."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", "size=256k")


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", "ro,size=256k")


def test_a_full_disk_is_reported_and_no_file_is_left(base: Path, adapter: Path, small_disk: Path) -> None:
    assert sum(path.stat().st_size for path in base.iterdir()) > 256 << 10

    with pytest.raises(StorageFull) as caught:
        merged(base, adapter, small_disk / "merged")

    assert caught.value.message == (
        f"no space left for {small_disk / 'merged'}; nothing was kept. Free some space and try again"
    )
    assert list(small_disk.iterdir()) == []


def test_an_unwritable_target_is_named(base: Path, adapter: Path, read_only_disk: Path) -> None:
    with pytest.raises(Unavailable, match=r"cannot write .*merged: Read-only file system"):
        merged(base, adapter, read_only_disk / "merged")


def test_a_target_inside_a_file_is_named(base: Path, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Unavailable, match=r"cannot write .*merged"):
        merged(base, adapter, tmp_path / "file" / "merged")


def test_threads_of_a_merge_import_nothing(base: Path, adapter: Path, tmp_path: Path) -> None:
    """Ctrl-C could leave the import lock with the main thread, and both threads would wait forever."""
    script = """
import sys, threading
class Recorder:
    def find_spec(self, name, *rest):
        if threading.current_thread() is not threading.main_thread():
            print(name)
sys.meta_path.insert(0, Recorder())
from adaptry import merge
base, adapter, target = sys.argv[1:]
merge(adapter, base=base, to=target)
"""
    words = [sys.executable, "-c", script, str(base), str(adapter), str(tmp_path / "merged")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)

    assert done.stdout == ""
    assert (tmp_path / "merged" / "config.json").exists()
