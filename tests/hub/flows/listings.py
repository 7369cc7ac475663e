"""What is there: lines 19 to 21, 23, 31, 32."""

from __future__ import annotations

from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.hf_api import RepoFile, RepoFolder
from world import CARD, CONFIG, WEIGHTS, World, git_sha1, has_commit_id, line, sha256


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


@line(20)
def files_and_trees(world: World) -> None:
    name = world.pushed()
    world.api().create_branch(name, branch="steps")
    world.api().upload_folder(
        repo_id=name, folder_path=world.folders / "second", path_in_repo="checkpoint-1", revision="steps"
    )
    flat = {each.path: each for each in world.api().list_repo_tree(name, revision="steps")}
    assert {CONFIG, WEIGHTS, CARD, "checkpoint-1"} <= flat.keys()
    assert isinstance(flat["checkpoint-1"], RepoFolder)
    deep = {each.path for each in world.api().list_repo_tree(name, revision="steps", recursive=True)}
    files = set(world.api().list_repo_files(name, revision="steps"))
    assert f"checkpoint-1/{WEIGHTS}" in files
    assert deep == files | {"checkpoint-1"}
    inside = list(world.api().list_repo_tree(name, "checkpoint-1", revision="steps", expand=True))
    assert {each.path for each in inside} == {path for path in files if "/" in path}
    for each in inside:
        assert isinstance(each, RepoFile)
        assert each.last_commit is not None
        assert has_commit_id(each.last_commit.oid)
    weights = flat[WEIGHTS]
    assert weights.lfs.sha256 == sha256(world.bytes("first"))
    assert flat[CONFIG].blob_id == git_sha1(world.bytes("first", CONFIG))


@line(21)
def paths_info(world: World) -> None:
    name = world.pushed()
    world.api().create_branch(name, branch="steps")
    world.api().upload_folder(
        repo_id=name, folder_path=world.folders / "second", path_in_repo="checkpoint-1", revision="steps"
    )
    asked = [WEIGHTS, "checkpoint-1", "vocab.txt"]
    found = world.api().get_paths_info(name, asked, expand=True, revision="steps")
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
