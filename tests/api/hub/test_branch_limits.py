"""Files that exceed the limits of a branch are refused when they are announced, before their bytes
are sent.
"""

from __future__ import annotations

import hashlib

import pytest

from adaptry.core.errors import TooLarge
from adaptry.core.manifest import MAX_TREE, check_tree
from adaptry.core.tree_paths import MAX_DEPTH, MAX_PATH
from adaptry_api.hub.announced_files import IDLE_SECONDS, LOOP_SECONDS, LOOP_TIMES, Announcements
from adaptry_api.testing import RawResponse, Server

from .uploads import TONE, create

BRANCH = "drafts"


@pytest.fixture(autouse=True)
def adapter(server: Server) -> None:
    create(server)
    assert server.call("POST", f"/api/models/{TONE}/branch/{BRANCH}", {}).status == 200


def announce(server: Server, paths: list[str], token: str = "admin", branch: str = BRANCH) -> RawResponse:
    files = [{"path": path, "size": 100, "sample": ""} for path in paths]
    return server.call("POST", f"/api/models/{TONE}/preupload/{branch}", {"files": files}, token=token)


def checkpoints(start: int, count: int) -> list[str]:
    """Paths of the checkpoints of a training run, with two files in each."""
    return [
        f"checkpoint-{number // 2}/{('README.md', 'adapter_config.json')[number % 2]}"
        for number in range(start, start + count)
    ]


def announce_all(server: Server, count: int, token: str = "admin") -> RawResponse:
    """Announces files as clients do: 256 at a time, until one is refused."""
    for start in range(0, count, 256):
        answer = announce(server, checkpoints(start, min(256, count - start)), token)
        if answer.status != 200:
            break
    return answer


def test_a_long_training_run_fits_into_a_branch(server: Server) -> None:
    assert MAX_TREE >= 64 * 12 * 4
    answer = announce_all(server, MAX_TREE)
    assert answer.status == 200
    assert not any(file["shouldIgnore"] for file in answer.json["files"])


def test_one_file_too_many_in_several_batches_is_refused_at_its_announcement(server: Server) -> None:
    answer = announce_all(server, MAX_TREE + 1)
    assert answer.status == 413
    assert f"{MAX_TREE + 1:,} files; a branch has at most {MAX_TREE:,}" in answer.json["error"]
    assert answer.headers["X-Error-Message"] == answer.json["error"]


def test_announcements_by_others_and_repetitions_do_not_count(server: Server) -> None:
    other = server.token("other", "writer", ("acme",))
    assert announce_all(server, MAX_TREE).status == 200
    assert announce_all(server, MAX_TREE).status == 200
    assert announce(server, ["a/README.md"], other).status == 200
    assert announce(server, ["README.md"], branch="main").status == 200
    assert announce(server, ["a/README.md"]).status == 413
    assert announce(server, ["a/README.md"]).status == 200, "the upload that was refused is over"


@pytest.mark.parametrize(
    "path",
    ["a/" * MAX_DEPTH + "README.md", f"{'a' * 100}/{'b' * 100}/{'c' * 50}/README.md"],
)
def test_a_path_that_is_too_deep_or_too_long_is_refused_when_it_is_announced(
    server: Server, path: str
) -> None:
    answer = announce(server, ["README.md", path])
    assert answer.status == 413
    for said in (path[:50], f"{MAX_DEPTH} segments", f"{MAX_PATH} characters"):
        assert said in answer.json["error"]
    fits = "a/" * (MAX_DEPTH - 1) + "README.md"
    assert announce(server, [fits]).json["files"][0]["shouldIgnore"] is False


def test_a_client_that_repeats_a_refused_announcement_is_stopped_by_ignoring_the_files(
    server: Server,
) -> None:
    deep = "a/" * MAX_DEPTH + "README.md"
    answers = [announce(server, [deep]) for _ in range(LOOP_TIMES)]
    assert [answer.status for answer in answers] == [413] * (LOOP_TIMES - 1) + [200]
    (file,) = answers[-1].json["files"]
    assert file["shouldIgnore"] is True
    assert "too deep or too long" in answers[-1].headers["X-HF-Warning"]
    assert announce(server, ["model.safetensors"]).status == 400, "another refusal begins from one"


def test_a_commit_takes_as_many_operations_as_a_branch_has_files(server: Server) -> None:
    content = b"x"
    oid = hashlib.sha256(content).hexdigest()
    lines = [b'{"key":"header","value":{"summary":"x"}}']
    lines += [b'{"key":"file","value":{"path":"a/README.md","content":"eA==","encoding":"base64"}}']
    lines += [
        b'{"key":"lfsFile","value":{"path":"c%d/README.md","algo":"sha256","oid":"%s","size":1}}'
        % (n, oid.encode())
        for n in range(1500)
    ]
    answer = server.call("POST", f"/api/models/{TONE}/commit/{BRANCH}", b"\n".join(lines))
    assert answer.status == 200, answer.body
    tree = server.call("GET", f"/api/models/{TONE}/tree/{BRANCH}?recursive=true")
    assert len(tree.json) == 1000
    assert 'rel="next"' in tree.headers["Link"]


def test_names_that_are_too_long_in_total_are_refused() -> None:
    check_tree([f"{number:05}/{'a' * 30}" for number in range(MAX_TREE)])
    with pytest.raises(TooLarge, match="too many characters in total"):
        check_tree([f"{number:05}/{'a' * 200}" for number in range(MAX_TREE)])


def test_announcements_are_forgotten_when_nothing_follows_them() -> None:
    announcements, key = Announcements(), ("ada", "acme/tone", "main")
    assert announcements.add(key, ["a"], 0).paths == {"a"}
    assert announcements.add(key, ["b"], IDLE_SECONDS).paths == {"a", "b"}
    assert announcements.add(key, ["c"], 2 * IDLE_SECONDS + 1).paths == {"c"}
    assert announcements.add(("eve", *key[1:]), ["d"], 0).paths == {"d"}


def test_an_upload_comes_in_batches_from_a_full_one_until_it_is_refused_or_idle() -> None:
    announcements, key = Announcements(), ("ada", "acme/tone", "main")
    assert not announcements.add(key, ["a"], 0).is_in_batches
    assert announcements.add(key, ["b"], 1, is_full=True).is_in_batches
    assert announcements.add(key, [], 2).is_in_batches
    assert not announcements.add(key, [], 3 + IDLE_SECONDS).is_in_batches
    announcements.add(key, ["b"], 4 + IDLE_SECONDS, is_full=True)
    announcements.is_repeated(key, ["c"], 5 + IDLE_SECONDS)
    assert not announcements.add(key, ["a"], 6 + IDLE_SECONDS).is_in_batches


def test_slow_repetitions_are_never_refused() -> None:
    announcements, key = Announcements(), ("ada", "acme/tone", "main")
    pause = LOOP_SECONDS / (LOOP_TIMES - 2)
    assert not any(announcements.is_repeated(key, ["a"], number * pause) for number in range(100))
    assert [announcements.is_repeated(key, ["b"], 0) for _ in range(LOOP_TIMES)].index(True) == LOOP_TIMES - 1
