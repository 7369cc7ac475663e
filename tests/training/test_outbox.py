"""The outbox of pushes: in order, while the registry is unreachable, without losses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adaptry.core.errors import CheckFailed, NotFound, Unavailable
from adaptry.integrations.training.outbox import Outbox
from adaptry.testing.samples import tiny_lora


def test_a_registry_that_comes_back_gets_everything_in_order(tmp_path: Path) -> None:
    folder, done, said = tiny_lora(tmp_path / "lora"), [], []
    tries = {"first": 0}

    def first(files: Path) -> None:
        tries["first"] += 1
        if tries["first"] < 4:
            raise Unavailable("nobody answers")
        done.append("first")

    outbox = Outbox(said.append, retry=0.001)
    outbox.enqueue("first", folder, first)
    outbox.enqueue("second", folder, lambda files: done.append("second"))
    assert outbox.drain(timeout=30) == ()
    assert done == ["first", "second"]
    assert said == ["first waits for the registry: nobody answers"]


def test_a_refused_push_does_not_block_others_and_is_kept(tmp_path: Path) -> None:
    folder, done = tiny_lora(tmp_path / "lora"), []

    def refused(files: Path) -> None:
        raise CheckFailed("no")

    outbox = Outbox(lambda text: None, retry=0.001)
    outbox.enqueue("first", folder, refused)
    outbox.enqueue("second", folder, lambda files: done.append(sorted(path.name for path in files.iterdir())))
    (left,) = outbox.drain(timeout=30)
    assert done == [["adapter_config.json", "adapter_model.safetensors"]]
    assert (left.title, left.error and left.error.message) == ("first", "no")
    assert (left.folder / "adapter_model.safetensors").read_bytes() == (
        folder / "adapter_model.safetensors"
    ).read_bytes()
    shutil.rmtree(left.folder.parent)


def test_a_fault_is_reported_and_blocks_nothing(tmp_path: Path) -> None:
    folder, done, said = tiny_lora(tmp_path / "lora"), [], []

    def broken(files: Path) -> None:
        raise OSError(28, "No space left on device")

    outbox = Outbox(said.append, retry=0.001)
    outbox.enqueue("first", folder, broken)
    outbox.enqueue("second", folder, lambda files: done.append("second"))
    (left,) = outbox.drain(timeout=30)
    assert (done, left.title) == (["second"], "first")
    assert said == ["first was not pushed: OSError: [Errno 28] No space left on device"]
    shutil.rmtree(left.folder.parent)


def test_a_folder_may_be_deleted_once_it_is_enqueued(tmp_path: Path) -> None:
    folder = tiny_lora(tmp_path / "lora")
    data, seen = (folder / "adapter_model.safetensors").read_bytes(), []
    outbox = Outbox(lambda text: None)
    outbox.enqueue(
        "first", folder, lambda files: seen.append((files / "adapter_model.safetensors").read_bytes())
    )
    shutil.rmtree(folder)
    assert outbox.drain(timeout=30) == ()
    assert seen == [data]


def test_a_folder_without_an_adapter_is_not_queued(tmp_path: Path) -> None:
    outbox = Outbox(lambda text: None)
    with pytest.raises(NotFound):
        outbox.enqueue("nothing", tmp_path / "nowhere", lambda files: None)
    assert outbox.drain(timeout=30) == ()
