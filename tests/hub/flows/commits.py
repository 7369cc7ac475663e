"""Commits made by hand: lines 13, 15, 22, 51."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError
from world import CARD, CONFIG, WEIGHTS, World, line, raises, refused


@line(13)
def several_operations(world: World) -> None:
    """One file is added, one removed, and a large and a small one are copied."""
    name = world.name()
    folder = world.folder("first", **{"vocab.txt": "a", "LICENSE": "mine"})
    world.api().create_repo(name)
    world.api().upload_folder(repo_id=name, folder_path=folder)
    world.api().create_branch(name, branch="drafts")
    world.api().upload_file(
        path_or_fileobj=world.folders / "second" / WEIGHTS,
        path_in_repo=WEIGHTS,
        repo_id=name,
        revision="drafts",
    )
    before = len(world.api().list_repo_commits(name, revision="drafts"))
    operations = [
        CommitOperationAdd("merges.txt", b"b"),
        CommitOperationDelete("vocab.txt"),
        CommitOperationCopy(WEIGHTS, f"checkpoint-1/{WEIGHTS}", src_revision="v1"),
        CommitOperationCopy("LICENSE", "NOTICE"),
    ]
    done = world.api().create_commit(name, operations, commit_message="many", revision="drafts")
    api = world.api()
    found = set(api.list_repo_files(name, revision="drafts"))
    assert {"merges.txt", f"checkpoint-1/{WEIGHTS}", "NOTICE", "LICENSE", WEIGHTS} <= found
    assert "vocab.txt" not in found
    assert world.down(name, f"checkpoint-1/{WEIGHTS}", revision=done.oid) == world.bytes("first")
    assert world.down(name, "NOTICE", revision="drafts") == b"mine"
    assert len(api.list_repo_commits(name, revision="drafts")) == before + 1


@line(15)
def a_commit_on_what_was_seen(world: World) -> None:
    name = world.pushed()
    old = world.api().model_info(name).sha
    card = CommitOperationAdd(CARD, b"# One\n")
    new = world.api().create_commit(name, [card], commit_message="one", parent_commit=old)
    card = CommitOperationAdd(CARD, b"# Two\n")
    with refused(412):
        world.api().create_commit(name, [card], commit_message="two", parent_commit=old)
    with raises(RevisionNotFoundError):
        world.api().create_commit(name, [card], commit_message="two", revision=new.oid)
    with raises(RevisionNotFoundError):
        world.api().create_commit(name, [card], commit_message="two", revision="no-such-branch")
    assert world.api().model_info(name).sha == new.oid


@line(22)
def commits_listed(world: World) -> None:
    name = world.pushed()
    for number in range(3):
        card = CommitOperationAdd(CARD, f"# {number}\n".encode())
        world.api().create_commit(name, [card], commit_message=f"card {number}", commit_description="why")
    found = world.api().list_repo_commits(name, formatted=True)
    assert [commit.title for commit in found[:3]] == ["card 2", "card 1", "card 0"]
    assert found[0].commit_id == world.api().model_info(name).sha
    assert found[0].message == "why"
    assert found[0].authors == ["alice"]
    assert found[0].formatted_title
    assert len({commit.commit_id for commit in found}) == len(found)
    older = world.api().list_repo_commits(name, revision=found[2].commit_id)
    assert [commit.commit_id for commit in older] == [commit.commit_id for commit in found[2:]]
    many = world.name("many")
    world.api().create_repo(many)
    for number in range(60):
        card = CommitOperationAdd(CARD, f"# {number}\n".encode())
        world.api().create_commit(many, [card], commit_message=f"card {number}")
    titles = [commit.title for commit in world.api().list_repo_commits(many)]
    assert titles[:60] == [f"card {number}" for number in reversed(range(60))]


@line(51)
def two_writers_at_once(world: World) -> None:
    """Both writers saw the same commit: the first creates the next one, and the second gets a conflict."""
    name = world.pushed()
    for _ in range(5):
        seen = world.api().model_info(name).sha

        def write(word: str, seen: str = seen) -> str | int:
            card = CommitOperationAdd(CARD, f"# {word} on {seen}\n".encode())
            try:
                return world.api().create_commit(name, [card], commit_message=word, parent_commit=seen).oid
            except HfHubHTTPError as error:
                return error.response.status_code

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(write, ["one", "two"]))
        oids = [answer for answer in answers if isinstance(answer, str)]
        assert len(oids) == 1, answers
        assert 412 in answers, answers
        assert world.api().model_info(name).sha == oids[0]
    assert world.api().file_exists(name, CONFIG)
