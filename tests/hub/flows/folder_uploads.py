"""Pushing folders and deleting files: lines 10 to 12, 14, 16, 17, 74."""

from __future__ import annotations

import shutil

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError
from world import CARD, CONFIG, WEIGHTS, World, line, raises, refused


def files(world: World, name: str, **at: str) -> set[str]:
    return {file for file in world.api().list_repo_files(name, **at) if file != ".gitattributes"}


def commits(world: World, name: str) -> int:
    return len(world.api().list_repo_commits(name))


@line(10)
def a_folder(world: World) -> None:
    """A card, a config, weights, an empty file and a subfolder are pushed in one commit."""
    name = world.name()
    world.api().create_repo(name)
    before = commits(world, name)
    folder = world.folder("first", LICENSE="", **{"chat_template.jinja": "{{ messages }}"})
    done = world.api().upload_folder(repo_id=name, folder_path=folder)
    assert commits(world, name) == before + 1
    assert world.api().model_info(name).sha == done.oid
    assert files(world, name) == {path.name for path in folder.iterdir()}
    assert world.down(name, "LICENSE") == b""


@line(11)
def the_same_folder_again(world: World) -> None:
    name = world.name()
    world.api().create_repo(name)
    first = world.api().upload_folder(repo_id=name, folder_path=world.folders / "first")
    before = commits(world, name)
    again = world.api().upload_folder(repo_id=name, folder_path=world.folders / "first")
    assert again.oid == first.oid
    assert commits(world, name) == before


@line(12)
def a_folder_with_deletions(world: World) -> None:
    name = world.name()
    world.api().create_repo(name)
    folder = world.folder("first", **{"LICENSE.txt": "mine", "vocab.txt": "a"})
    world.api().upload_folder(repo_id=name, folder_path=folder)
    (folder / "vocab.txt").unlink()
    (folder / "LICENSE.txt").unlink()
    world.api().upload_folder(repo_id=name, folder_path=folder, delete_patterns="*.txt")
    assert files(world, name) == {path.name for path in folder.iterdir()}


@line(14)
def things_taken_away(world: World) -> None:
    name = world.name()
    world.api().create_repo(name)
    folder = world.folder("first", **{"LICENSE.txt": "mine", "vocab.txt": "a"})
    world.api().upload_folder(repo_id=name, folder_path=folder)
    with raises(EntryNotFoundError):
        world.api().delete_file("merges.txt", name)
    world.api().delete_file("LICENSE.txt", name)
    gone = CommitOperationDelete("vocab.txt")
    world.api().create_commit(name, [gone], commit_message="gone")
    assert files(world, name) == {CONFIG, WEIGHTS, CARD}
    world.api().create_branch(name, branch="drafts")
    world.api().delete_files(name, ["adapter_*"], revision="drafts")
    for step in ("checkpoint-1", "checkpoint-2"):
        world.api().upload_folder(
            repo_id=name, folder_path=world.folders / "second", path_in_repo=step, revision="drafts"
        )
    world.api().delete_folder("checkpoint-1", name, revision="drafts")
    checkpoint = {f"checkpoint-2/{file}" for file in (CONFIG, WEIGHTS, CARD)}
    assert files(world, name, revision="drafts") == {CARD} | checkpoint
    gone = CommitOperationDelete("checkpoint-2/")
    world.api().create_commit(name, [gone], commit_message="gone", revision="drafts")
    assert files(world, name, revision="drafts") == {CARD}
    assert files(world, name) == {CONFIG, WEIGHTS, CARD}


@line(16)
def ignored_files(world: World) -> None:
    name = world.name()
    world.api().create_repo(name)
    folder = world.folder("first", **{".gitignore": "vocab.txt\n", "vocab.txt": "a", "merges.txt": "b"})
    world.api().upload_folder(repo_id=name, folder_path=folder)
    assert "vocab.txt" not in files(world, name)
    assert {"merges.txt", WEIGHTS} <= files(world, name)


@line(17)
def a_broken_card(world: World) -> None:
    name = world.pushed()
    before = world.api().model_info(name).sha
    folder = world.folder("second", **{CARD: "---\ntags: [unclosed\n---\n# Tone\n"})
    with raises(ValueError):
        world.api().upload_folder(repo_id=name, folder_path=folder)
    assert world.api().model_info(name).sha == before


@line(53)
def what_does_not_belong(world: World) -> None:
    """Pickles, optimizer state and training checkpoints are left out, and all other files are stored."""
    name = world.name()
    world.api().create_repo(name)
    folder = world.folder("first")
    strays = {"training_args.bin", "optimizer.pt", "rng_state.pth"}
    for stray in strays:
        (folder / stray).write_bytes(b"\x80\x04.")
    shutil.copytree(world.folders / "second", folder / "checkpoint-1")
    world.api().upload_folder(repo_id=name, folder_path=folder)
    assert files(world, name) == {CONFIG, WEIGHTS, CARD}
    whole = world.scratch / "model.safetensors"
    shutil.copyfile(world.folders / "base" / "model.safetensors", whole)
    with refused(400):
        world.api().upload_file(path_or_fileobj=whole, path_in_repo=whole.name, repo_id=name)


@line(54)
def an_adapter_that_cannot_work(world: World) -> None:
    """A commit is refused for the same reasons as `adaptry push`, with a message that the user sees."""
    name = world.pushed()
    before = world.api().model_info(name).sha
    broken = [
        CommitOperationAdd(CONFIG, (world.folders / "first" / CONFIG).read_bytes()),
        CommitOperationAdd(WEIGHTS, world.folders / "misfit" / WEIGHTS),
    ]
    with refused(400, "q_proj"):
        world.api().create_commit(name, broken, commit_message="misfit")
    assert world.api().model_info(name).sha == before


@line(74)
def what_a_branch_cannot_hold(world: World) -> None:
    """The file is refused when it is announced, with the reason, and nothing is stored, even by the client
    that retries without end.
    """
    name = world.name()
    world.api().create_repo(name)
    world.api().create_branch(name, branch="drafts")
    folder = world.scratch / "deep"
    shutil.copytree(world.folders / "first", folder.joinpath(*"abcdefgh"))
    with refused(413, "too deep or too long"):
        world.api().upload_folder(repo_id=name, folder_path=folder, revision="drafts")
    if hasattr(HfApi, "upload_large_folder"):  # it ends even if everything is refused
        world.api().upload_large_folder(
            repo_id=name, repo_type="model", folder_path=folder, revision="drafts", print_report=False
        )
    assert world.api().list_repo_files(name, revision="drafts") == []
