"""Registering a base, finding it again, and opening it when only its name is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.errors import Conflict, InvalidRef, NotFound, TooLarge
from adaptry.operations.base_registry import find_matches, open_base, register_base
from adaptry.registry.interface import Registry
from adaptry.testing.samples import tiny_base

NAME = ("org/tiny",)


def test_a_base_is_registered_by_content_and_named(registry: Registry, tmp_path: Path) -> None:
    info = register_base(registry, open_checkpoint(tiny_base(tmp_path / "base")), NAME)
    assert info.names == NAME
    assert registry.bases.get("org/tiny").id == info.id
    assert not info.is_stored


def test_the_same_weights_in_another_folder_are_one_base_with_two_names(
    registry: Registry, tmp_path: Path
) -> None:
    first = register_base(registry, open_checkpoint(tiny_base(tmp_path / "a")), NAME)
    second = register_base(registry, open_checkpoint(tiny_base(tmp_path / "b", shards=3)), ("mirror/tiny",))
    assert second.id == first.id
    assert set(second.names) == {"org/tiny", "mirror/tiny"}


def test_a_name_is_not_taken_from_another_base(registry: Registry, tmp_path: Path) -> None:
    register_base(registry, open_checkpoint(tiny_base(tmp_path / "a")), NAME)
    with pytest.raises(Conflict, match="org/tiny"):
        register_base(registry, open_checkpoint(tiny_base(tmp_path / "b", seed=1)), NAME)


def test_a_full_reading_adds_evidence(registry: Registry, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_base(tmp_path / "base"))
    assert register_base(registry, checkpoint, NAME).roots is None
    assert register_base(registry, checkpoint, NAME, full=True).roots is not None
    assert find_matches(registry.bases, checkpoint)[0].base.roots is not None


def test_matches_of_a_folder_are_listed_best_first(registry: Registry, tmp_path: Path) -> None:
    retrained = register_base(
        registry, open_checkpoint(tiny_base(tmp_path / "retrained", seed=1)), ("org/retrained",)
    )
    same = register_base(registry, open_checkpoint(tiny_base(tmp_path / "same")), NAME)
    register_base(registry, open_checkpoint(tiny_base(tmp_path / "deeper", layers=3)), ("org/deeper",))
    found = find_matches(registry.bases, open_checkpoint(tiny_base(tmp_path / "asked", shards=2)))
    assert [(item.base.id, item.match.level) for item in found] == [
        (same.id, "same_weights"),
        (retrained.id, "same_shapes"),
    ]


def test_a_folder_is_opened_unchanged(registry: Registry, tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "base")
    assert open_base(registry, str(folder)).folder == folder


def test_a_name_opens_the_folder_it_was_registered_from(registry: Registry, tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "base")
    info = register_base(registry, open_checkpoint(folder), NAME)
    assert open_base(registry, "org/tiny").folder == folder
    assert open_base(registry, str(info.id)).folder == folder


@pytest.mark.parametrize("seed", [None, 1], ids=["gone", "overwritten"])
def test_a_folder_that_no_longer_contains_the_base_is_not_used(
    registry: Registry, tmp_path: Path, seed: int | None
) -> None:
    folder = tiny_base(tmp_path / "base")
    register_base(registry, open_checkpoint(folder), NAME)
    shutil.rmtree(folder)
    if seed is not None:
        tiny_base(folder, seed=seed)
    with pytest.raises(NotFound, match="adaptry base add FOLDER --name org/tiny --store"):
        open_base(registry, "org/tiny")


def test_every_known_folder_of_a_base_is_tried_the_most_recent_first(
    registry: Registry, tmp_path: Path
) -> None:
    first, second = tiny_base(tmp_path / "first"), tiny_base(tmp_path / "second")
    for folder in (first, second):
        register_base(registry, open_checkpoint(folder), NAME)
    assert open_base(registry, "org/tiny").folder == second
    tiny_base(second, seed=1)
    assert open_base(registry, "org/tiny").folder == first
    shutil.rmtree(first)
    with pytest.raises(NotFound, match=r"second has changed.*first no longer exists"):
        open_base(registry, "org/tiny")


def test_an_invalid_base_name_is_refused_before_any_read(registry: Registry, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_base(tmp_path / "base"))
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(InvalidRef, match="ORG/MODEL"):
        register_base(registry, checkpoint, ("./base",))


def test_a_stored_base_opens_without_its_folder(registry: Registry, tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "base", shards=2)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    info = register_base(registry, open_checkpoint(folder), NAME, store=True)
    assert info.is_stored
    shutil.rmtree(folder)
    opened = open_base(registry, "org/tiny", cache=tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in opened.folder.iterdir()} == before
    assert open_base(registry, "org/tiny", cache=tmp_path / "cache").folder == opened.folder


def test_storing_a_blob_again_raises_no_error_and_sends_nothing(registry: Registry, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_base(tmp_path / "base"))
    first = register_base(registry, checkpoint, NAME, store=True)
    told: list[str] = []
    again = register_base(
        registry, checkpoint, NAME, store=True, progress=lambda text, done, total: told.append(text)
    )
    assert again.stored == first.stored
    assert not [text for text in told if "upload" in text]


def test_damaged_records_of_folders_are_ignored(registry: Registry, tmp_path: Path, home: Path) -> None:
    folder = tiny_base(tmp_path / "base")
    register_base(registry, open_checkpoint(folder), NAME)
    [places] = home.rglob("base_places.json")
    places.write_text(json.dumps(["nonsense"]))
    with pytest.raises(NotFound, match="--store"):
        open_base(registry, "org/tiny")
    register_base(registry, open_checkpoint(folder), NAME)
    assert open_base(registry, "org/tiny").folder == folder


def test_a_file_too_large_to_store_is_refused_before_anything_is_sent(
    registry: Registry, tmp_path: Path
) -> None:
    folder = tiny_base(tmp_path / "base")
    size = (9 << 30) // 4
    header = json.dumps(
        {"huge.weight": {"dtype": "F32", "shape": [1024, size // 1024], "data_offsets": [0, 4 * size]}}
    ).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * size)  # a sparse file, which takes no disk space
    with pytest.raises(TooLarge, match="max_shard_size"):
        register_base(registry, open_checkpoint(folder), NAME, store=True)
    assert registry.bases.list().items == ()
