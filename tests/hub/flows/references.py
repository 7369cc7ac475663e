"""Branches, tags and aliases: lines 24 to 26, 41, 55."""

from __future__ import annotations

from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RevisionNotFoundError
from world import CARD, CONFIG, WEIGHTS, World, line, raises, refused, sha256


def weights_at(world: World, name: str, revision: str) -> str:
    return sha256(world.down(name, revision=revision))


def branches(world: World, name: str) -> dict[str, str]:
    return {each.name: each.target_commit for each in world.api().list_repo_refs(name).branches}


def tags(world: World, name: str) -> dict[str, str]:
    return {each.name: each.target_commit for each in world.api().list_repo_refs(name).tags}


@line(24)
def tags_and_branches(world: World) -> None:
    name = world.pushed()
    api = world.api()
    sha = api.model_info(name).sha
    api.create_tag(name, tag="first", tag_message="the first one")
    with refused(409):
        api.create_tag(name, tag="first")
    api.create_tag(name, tag="first", exist_ok=True)
    api.create_tag(name, tag="short", revision=sha[:9])
    with raises(RevisionNotFoundError):
        api.create_tag(name, tag="lost", revision="no-such-branch")
    api.create_branch(name, branch="feat/x", revision="first")
    with refused(409):
        api.create_branch(name, branch="feat/x")
    api.create_branch(name, branch="feat/x", exist_ok=True)
    with raises(BadRequestError):
        api.create_branch(name, branch="refs/pr/5")
    assert tags(world, name).items() >= {"first": sha, "short": sha, "v1": sha}.items()
    assert branches(world, name) == {"main": sha, "feat/x": sha}


@line(25)
def references(world: World) -> None:
    name = world.pushed()
    world.api().create_branch(name, branch="steps")
    found = world.api().list_repo_refs(name, include_pull_requests=True)
    assert {each.ref for each in found.branches} == {"refs/heads/main", "refs/heads/steps"}
    assert {each.ref for each in found.tags} == {"refs/tags/v1"}
    assert found.converts == []
    assert found.pull_requests == []


@line(26)
def a_branch_moves_and_a_tag_does_not(world: World) -> None:
    name = world.pushed()
    world.api().create_tag(name, tag="first")
    world.api().create_branch(name, branch="steps")
    world.api().upload_file(
        path_or_fileobj=world.folders / "second" / WEIGHTS,
        path_in_repo=WEIGHTS,
        repo_id=name,
        revision="steps",
    )
    first, second = sha256(world.bytes("first")), sha256(world.bytes("second"))
    assert weights_at(world, name, "steps") == second
    assert {weights_at(world, name, at) for at in ("main", "first", "v1")} == {first}
    assert "v2" not in tags(world, name), "a draft is no version"


@line(41)
def endings(world: World) -> None:
    name = world.pushed()
    api = world.api()
    api.upload_folder(repo_id=name, folder_path=world.folders / "second")
    api.create_branch(name, branch="steps")
    api.super_squash_history(name, branch="steps", commit_message="one")
    assert len(api.list_repo_commits(name, revision="steps")) == 1
    assert weights_at(world, name, "steps") == sha256(world.bytes("second"))
    api.create_tag(name, tag="first")
    api.delete_tag(name, tag="first")
    with raises(RevisionNotFoundError):
        api.delete_tag(name, tag="first")
    api.delete_branch(name, branch="steps")
    assert list(branches(world, name)) == ["main"]
    with refused(403):
        api.delete_branch(name, branch="main")
    with raises(HfHubHTTPError, 404):
        api.delete_branch(name, branch="steps")
    api.delete_repo(name)
    assert not api.repo_exists(name)
    api.delete_repo(name, missing_ok=True)
    with raises(HfHubHTTPError, 404):
        api.delete_repo(name)


@line(55)
def versions_and_aliases(world: World) -> None:
    """A commit that changes weights makes the next version; a new card makes none; `prod` moves only by
    promotion.
    """
    name = world.pushed()
    api = world.api()
    card = {"path_or_fileobj": b"# Only the card\n", "path_in_repo": CARD, "repo_id": name}
    api.upload_file(**card)
    assert list(tags(world, name)) == ["v1"]
    second = api.upload_folder(repo_id=name, folder_path=world.folders / "second").oid
    assert tags(world, name)["v2"] == second
    assert world.command("alias", "set", f"{name}@1", "prod")
    assert branches(world, name) == {"main": second, "prod": tags(world, name)["v1"]}
    assert weights_at(world, name, "prod") == sha256(world.bytes("first"))
    with refused(403, "prod"):
        api.upload_file(**card, revision="prod")
    with refused(403, "prod"):
        api.delete_branch(name, branch="prod")
    with refused(409):
        api.create_branch(name, branch="prod")
    assert world.command("promote", f"{name}@2")
    assert weights_at(world, name, "prod") == sha256(world.bytes("second"))
    assert api.file_exists(name, CONFIG, revision="prod")
