"""Visibility, names, and messages of refusals: lines 29, 38 to 40."""

from __future__ import annotations

from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError
from world import CARD, CONFIG, World, line, raises, refused


@line(38)
def no_pull_requests(world: World) -> None:
    """They are refused with a message that names the alternative."""
    name = world.pushed()
    before = world.api().model_info(name).sha
    card = CommitOperationAdd(CARD, b"# Proposed\n")
    for who in ("alice", "reader"):
        with raises(HfHubHTTPError, text="branch"):
            world.api(who).create_commit(name, [card], commit_message="please", create_pr=True)
    assert world.api().model_info(name).sha == before


@line(39)
def no_pull_requests_of_folders(world: World) -> None:
    name = world.pushed()
    before = world.api().model_info(name).sha
    with raises(HfHubHTTPError, text="branch"):
        world.api().upload_folder(repo_id=name, folder_path=world.folders / "second", create_pr=True)
    assert world.api().model_info(name).sha == before


@line(40)
def settings_and_moves(world: World) -> None:
    old, new = world.pushed(), world.name("moved")
    api = world.api()
    assert api.model_info(old).private
    api.update_repo_settings(old, private=False)
    assert not api.model_info(old).private
    assert world.api("stranger").repo_exists(old)
    api.update_repo_settings(old, private=True)
    assert not world.api("stranger").repo_exists(old)
    with raises(HfHubHTTPError):
        api.update_repo_settings(old, gated="auto")
    api.move_repo(old, new)
    assert api.model_info(new).id == new
    assert api.model_info(old).id == new
    assert api.hf_hub_download(old, CONFIG)
    done = api.upload_file(path_or_fileobj=b"# Moved\n", path_in_repo=CARD, repo_id=old)
    assert api.model_info(new).sha == done.oid
    api.move_repo(new, old)
    assert api.model_info(old).id == old
    assert api.model_info(new).id == old
    api.create_repo(world.name("taken"))
    with refused(409):
        api.move_repo(old, world.name("taken"))
    with raises(EntryNotFoundError):
        api.hf_hub_download(old, "vocab.txt")
    with raises(RepositoryNotFoundError):
        world.api("stranger").model_info(new)
