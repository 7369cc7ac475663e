"""Listings: lines 19 to 21, 23, 31, 32."""

from __future__ import annotations

from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.hf_api import RepoFolder
from world import (
    CARD,
    CONFIG,
    VERSION,
    WEIGHTS,
    World,
    git_sha1,
    has_commit_id,
    line,
    raises,
    refused,
    sha256,
)


@line(19)
def model_info(world: World) -> None:
    name = world.pushed()
    info = world.api().model_info(name)
    assert info.id == name
    assert info.author == "acme"
    assert has_commit_id(info.sha)
    assert info.private
    assert info.created_at
    assert info.last_modified
    assert {"peft", "base_model:adapter:org/tiny"} <= set(info.tags), info.tags
    assert info.library_name == "peft"
    assert {CONFIG, WEIGHTS, CARD} <= {each.rfilename for each in info.siblings}
    at = {each.rfilename: each for each in world.api().model_info(name, files_metadata=True).siblings}
    assert at[WEIGHTS].lfs["sha256"] == sha256(world.bytes("first"))
    assert at[WEIGHTS].size == len(world.bytes("first"))
    assert at[CONFIG].blob_id == git_sha1(world.bytes("first", CONFIG))
    assert world.api().model_info(name, securityStatus=True).security_repo_status
    some = world.api().model_info(name, expand=["sha", "author", "cardData", "siblings", "tags"])
    assert some.sha == info.sha
    assert some.author == "acme"
    assert some.card_data.base_model == "org/tiny"
    assert some.created_at is None
    more = world.api().model_info(name, expand=["baseModels", "downloadsAllTime"])
    bases = vars(more)["base_models" if "base_models" in vars(more) else "baseModels"]  # older clients
    assert (bases["relation"], [base["id"] for base in bases["models"]]) == ("adapter", ["org/tiny"])
    assert (more.downloads_all_time, info.downloads_all_time) == (0, None)


@line(20)
def files_and_trees(world: World) -> None:
    name = world.pushed()
    world.api().create_branch(name, branch="drafts")
    world.api().upload_file(
        path_or_fileobj=b"a",
        path_in_repo="vocab.txt",
        repo_id=name,
        revision="drafts",
        commit_message="words",
    )
    step = world.folders / "second"
    world.api().upload_folder(repo_id=name, folder_path=step, path_in_repo="checkpoint-1", revision="drafts")
    flat = {each.path: each for each in world.api().list_repo_tree(name, revision="drafts", expand=True)}
    assert flat.keys() >= {CONFIG, WEIGHTS, CARD, "vocab.txt", "checkpoint-1"}
    assert isinstance(flat["checkpoint-1"], RepoFolder)
    every = set(world.api().list_repo_files(name, revision="drafts"))
    inside = {path for path in every if "/" in path}
    assert inside == {f"checkpoint-1/{path.name}" for path in step.iterdir()}
    assert every - inside == flat.keys() - {"checkpoint-1"}
    deep = world.api().list_repo_tree(name, revision="drafts", recursive=True)
    assert {each.path for each in deep} == every | {"checkpoint-1"}
    below = world.api().list_repo_tree(name, "checkpoint-1", revision="drafts", expand=True)
    assert {each.path for each in below} == inside
    assert flat["vocab.txt"].last_commit.title == "words"
    assert flat[CONFIG].last_commit.title != "words"
    assert flat[CONFIG].last_commit.oid == world.api().model_info(name).sha
    assert flat[WEIGHTS].lfs.sha256 == sha256(world.bytes("first"))
    assert flat[CONFIG].blob_id == git_sha1(world.bytes("first", CONFIG))
    with raises(EntryNotFoundError):
        list(world.api().list_repo_tree(name, "checkpoint-1"))


@line(21)
def paths_info(world: World) -> None:
    name = world.pushed()
    found = world.api().get_paths_info(name, [WEIGHTS, CARD, "vocab.txt"], expand=True)
    assert {each.path for each in found} == {WEIGHTS, CARD}
    assert {each.last_commit.oid for each in found} == {world.api().model_info(name).sha}
    world.api().create_branch(name, branch="drafts")
    step = world.folders / "second"
    world.api().upload_folder(repo_id=name, folder_path=step, path_in_repo="checkpoint-1", revision="drafts")
    found = world.api().get_paths_info(name, [WEIGHTS, "checkpoint-1"], expand=True, revision="drafts")
    assert {each.path for each in found} == {WEIGHTS, "checkpoint-1"}


@line(23)
def models_listed(world: World) -> None:
    names = {world.pushed(word) for word in ("alpha", "beta", "gamma")}
    mine = {"author": "acme", "search": world.prefix}

    def ids(**asked: object) -> set[str]:
        return {model.id for model in world.api().list_models(**{**mine, **asked})}

    assert ids() == names
    assert ids(search=f"{world.prefix}-beta") == {world.name("beta")}
    assert ids(filter=["peft"]) == names
    assert ids(filter=["peft", "base_model:adapter:org/tiny"]) == names
    assert ids(filter="no-such-tag") == set()
    assert ids(inference="warm") == set()
    with refused(400, "cannot filter a list by apps"):
        ids(apps="vllm")
    if VERSION < (1, 0):  # it searches for both
        assert ids(model_name="beta") == {world.name("beta")}
    assert len(list(world.api().list_models(**mine, limit=2))) == 2
    full = next(iter(world.api().list_models(**mine, full=True, limit=1)))
    assert has_commit_id(full.sha)
    assert full.siblings
    card = next(iter(world.api().list_models(**mine, cardData=True, limit=1)))
    assert card.card_data.base_model == "org/tiny"
    assert next(iter(world.api().list_models(**mine, expand=["sha"], limit=1))).sha
    newest = [model.id for model in world.api().list_models(**mine, sort="last_modified")]
    assert newest == [world.name(word) for word in ("gamma", "beta", "alpha")]
    every = [model.id for model in world.api().list_models(author="acme")]
    assert names <= set(every)
    assert len(every) == len(set(every))
    assert {model.id for model in world.api("stranger").list_models(**mine)} == set()


@line(31)
def what_exists(world: World) -> None:
    name = world.pushed()
    api = world.api()
    assert api.repo_exists(name)
    assert not api.repo_exists(world.name("other"))
    assert api.revision_exists(name, "main")
    assert api.revision_exists(name, api.model_info(name).sha)
    assert not api.revision_exists(name, "other")
    assert api.file_exists(name, CONFIG)
    assert not api.file_exists(name, "vocab.txt")
    assert not api.file_exists(world.name("other"), CONFIG)


@line(32)
def file_metadata(world: World) -> None:
    name = world.pushed()
    sha = world.api().model_info(name).sha
    expected = {WEIGHTS: sha256(world.bytes("first")), CONFIG: git_sha1(world.bytes("first", CONFIG))}
    for file, etag in expected.items():
        found = get_hf_file_metadata(hf_hub_url(name, file))
        assert found.etag == etag, file
        assert found.size == len(world.bytes("first", file))
        assert found.commit_hash == sha
