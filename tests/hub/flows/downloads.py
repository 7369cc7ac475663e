"""Downloads: lines 27, 28, 33, 37, 49."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import HfFileSystem, constants, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from world import CARD, CONFIG, VERSION, WEIGHTS, World, line, raises


@line(27)
def a_file_by_every_word(world: World) -> None:
    name = world.name()
    api = world.api()
    api.create_repo(name)
    api.upload_folder(repo_id=name, folder_path=world.folder("first", LICENSE=""))
    api.create_branch(name, branch="feat/x")
    step = world.folders / "second"
    api.upload_folder(repo_id=name, folder_path=step, path_in_repo="checkpoint-1", revision="feat/x")
    api.create_tag(name, tag="first")
    sha = api.model_info(name).sha
    words = ["main", "first", "v1", "feat/x", "refs/heads/feat/x", "refs/heads/main", sha, sha[:8]]
    for word in words:
        found = world.down(name, revision=word)
        assert found == world.bytes("first"), word
    assert world.down(name, subfolder="checkpoint-1", revision="feat/x") == world.bytes("second")
    assert world.down(name, "LICENSE") == b""


@line(28)
def what_is_missing(world: World) -> None:
    name = world.pushed()
    api = world.api()
    with raises(RepositoryNotFoundError):
        api.hf_hub_download(world.name("other"), CONFIG)
    with raises(RepositoryNotFoundError):
        api.hf_hub_download("gpt2", "config.json")
    with raises(RevisionNotFoundError):
        api.hf_hub_download(name, CONFIG, revision="other")
    with raises(EntryNotFoundError):
        api.hf_hub_download(name, "vocab.txt")
    absent = try_to_load_from_cache(name, "vocab.txt")
    assert absent is not None, "its absence was not remembered"
    assert not isinstance(absent, str)
    with raises(RepositoryNotFoundError):
        world.api("stranger").hf_hub_download(name, CONFIG)


@line(33)
def snapshots(world: World) -> None:
    name = world.pushed()
    api = world.api()
    everything = Path(api.snapshot_download(name))
    assert {CONFIG, WEIGHTS, CARD} <= {path.name for path in everything.iterdir()}
    assert everything.name == api.model_info(name).sha
    some = Path(api.snapshot_download(name, allow_patterns="*.json", cache_dir=world.scratch / "some"))
    assert {path.name for path in some.iterdir()} == {CONFIG}
    rest = Path(api.snapshot_download(name, ignore_patterns="*.json", cache_dir=world.scratch / "rest"))
    assert WEIGHTS in {path.name for path in rest.iterdir()}
    assert CONFIG not in {path.name for path in rest.iterdir()}
    target = world.scratch / "here"
    api.snapshot_download(name, local_dir=target)
    written = (target / WEIGHTS).stat().st_mtime_ns
    assert (target / WEIGHTS).read_bytes() == world.bytes("first")
    api.snapshot_download(name, local_dir=target)
    assert (target / WEIGHTS).stat().st_mtime_ns == written


@line(37)
def as_a_file_system(world: World) -> None:
    name = world.pushed()
    world.api().create_tag(name, tag="first")
    files = HfFileSystem()
    assert f"{name}/{CONFIG}" in files.ls(name, detail=False)
    assert files.glob(f"{name}/*.safetensors") == [f"{name}/{WEIGHTS}"]
    assert files.info(f"{name}@first/{WEIGHTS}")["size"] == len(world.bytes("first"))
    with files.open(f"{name}/{WEIGHTS}", "rb") as weights:
        weights.seek(100)
        assert weights.read(50) == world.bytes("first")[100:150]
    with files.open(f"{name}/NOTICE", "w") as note:
        note.write("mine")
    assert files.cat_file(f"{name}/NOTICE") == b"mine"
    files.rm(f"{name}/NOTICE")
    assert not files.exists(f"{name}/NOTICE")


@line(49)
def as_vllm_asks(world: World) -> None:
    name = world.pushed()
    api = world.api()
    folder = Path(api.snapshot_download(repo_id=name))
    assert (folder / WEIGHTS).read_bytes() == world.bytes("first")
    assert {CONFIG, WEIGHTS} <= set(api.list_repo_files(repo_id=name))
    assert f"{name}/{CONFIG}" in HfFileSystem().ls(name, detail=False)
    if VERSION >= (1, 26):
        assert api.resolve_revision(name, revision="v1").resolved == api.model_info(name).sha


@line(36)
def without_a_server(world: World) -> None:
    from wire import PROXY

    assert PROXY is not None
    name = world.pushed()
    api = world.api()
    online = api.snapshot_download(name)
    file = api.hf_hub_download(name, CONFIG)
    PROXY.close()
    assert api.hf_hub_download(name, CONFIG) == file
    assert api.snapshot_download(name) == online
    constants.HF_HUB_OFFLINE = True
    os.environ["HF_HUB_OFFLINE"] = "1"
    assert api.hf_hub_download(name, CONFIG) == file
    assert api.snapshot_download(name) == online
