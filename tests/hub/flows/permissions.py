"""Identity and permissions: lines 1 to 5, 18."""

from __future__ import annotations

import huggingface_hub.errors as errors
from huggingface_hub import HfApi
from world import CONFIG, World, line, raises, refused


@line(1)
def whoami(world: World) -> None:
    told = world.api().whoami()
    assert told["name"] == "alice", told
    assert "acme" in {org["name"] for org in told["orgs"]}, told
    # Before 1.0 it is an error of `requests`; both are OSErrors.
    with raises(OSError, 401):
        HfApi(token="hf_of_nobody").whoami()


@line(2)
def create_repo(world: World) -> None:
    name = world.name()
    assert world.api().create_repo(name).repo_id == name
    with refused(409):
        world.api().create_repo(name)
    assert world.api().create_repo(name, exist_ok=True).repo_id == name


@line(3)
def create_repo_in_ones_own_namespace(world: World) -> None:
    assert world.api().create_repo(f"{world.prefix}-own").repo_id == f"alice/{world.prefix}-own"


@line(4)
def private_is_absent(world: World) -> None:
    name = world.name()
    world.api().create_repo(name, private=True)
    assert not world.api("nobody").repo_exists(name)
    assert not world.api("stranger").repo_exists(name)
    assert world.api().repo_exists(name)


@line(5)
def a_reader_creates_nothing(world: World) -> None:
    name = world.pushed()
    assert world.api("reader").create_repo(name, exist_ok=True).repo_id == name
    with refused(403):
        world.api().create_repo(f"others/{world.prefix}")


@line(18)
def a_reader_writes_nothing(world: World) -> None:
    name = world.pushed()
    before = world.api().model_info(name).sha
    with refused(403):
        world.api("reader").upload_folder(repo_id=name, folder_path=world.folders / "second")
    with refused(403):
        world.api("reader").upload_file(path_or_fileobj=b"{}", path_in_repo=CONFIG, repo_id=name)
    with raises(errors.RepositoryNotFoundError):
        world.api("stranger").upload_file(path_or_fileobj=b"{}", path_in_repo=CONFIG, repo_id=name)
    assert world.api().model_info(name).sha == before
