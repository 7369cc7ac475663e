"""Responses of the Hub protocol, header by header, because clients depend on each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.refs import AdapterName, Number, Ref
from adaptry.operations import base_registry
from adaptry.testing.samples import tiny_base
from adaptry_api.testing import RawResponse, Server, until

from .pushed import CARD, CONFIG, README, TONE, WEIGHTS, create, files_of, lines, put, send


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    return files_of(tmp_path / "tone") | {README: CARD}


@pytest.fixture
def commit(server: Server, files: dict[str, bytes]) -> str:
    """The id of acme/tone's only version."""
    create(server)
    return put(server, files)


def resolve(
    server: Server, path: str, revision: str = "main", method: str = "GET", **headers: str
) -> RawResponse:
    return server.call(method, f"/{TONE}/resolve/{revision}/{path}", headers=headers)


def test_a_large_file_has_its_sha256_as_etag_and_a_small_one_gits_id(
    server: Server, commit: str, files: dict[str, bytes]
) -> None:
    large, small = resolve(server, WEIGHTS, method="HEAD"), resolve(server, README, method="HEAD")
    git = hashlib.sha1(b"blob %d\0" % len(CARD) + CARD, usedforsecurity=False).hexdigest()
    assert large.headers["ETag"] == f'"{hashlib.sha256(files[WEIGHTS]).hexdigest()}"'
    assert small.headers["ETag"] == f'"{git}"'
    for answer, path in ((large, WEIGHTS), (small, README)):
        assert answer.status == 200
        assert answer.body == b""
        assert answer.headers["X-Repo-Commit"] == commit
        assert answer.headers["X-Linked-Size"] == answer.headers["Content-Length"] == str(len(files[path]))
        assert answer.headers["X-Linked-Etag"] == answer.headers["ETag"]
        assert not [name for name in answer.headers if name.lower().startswith("x-xet")]


def test_a_file_is_read_whole_or_in_part(server: Server, commit: str, files: dict[str, bytes]) -> None:
    whole = files[WEIGHTS]
    assert resolve(server, WEIGHTS).body == whole
    part = resolve(server, WEIGHTS, Range="bytes=10-19")
    assert (part.status, part.body) == (206, whole[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(whole)}"
    beyond = resolve(server, WEIGHTS, Range=f"bytes={len(whole)}-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")
    assert "cannot be read from that offset" in beyond.json["error"]
    same = resolve(server, WEIGHTS, **{"If-None-Match": part.headers["ETag"]})
    assert (same.status, same.body) == (304, b"")


def test_a_head_request_describes_the_whole_file_for_any_range(
    server: Server, commit: str, files: dict[str, bytes]
) -> None:
    for asked in ("0-0", "-5", "99999999-"):
        address = f"/{TONE}/resolve/main/{WEIGHTS}"
        answer = server.call("HEAD", address, headers={"Range": f"bytes={asked}"})
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(files[WEIGHTS])))


def test_a_revision_has_several_accepted_names(server: Server, commit: str, files: dict[str, bytes]) -> None:
    server.call("POST", f"/api/models/{TONE}/branch/feat%2Fx")
    server.call("POST", f"/api/models/{TONE}/tag/main", {"tag": "first"})
    alias = f"/api/v1/adapters/{TONE}/aliases/prod"
    digest = server.call("GET", f"/api/v1/adapters/{TONE}/versions/1").json["digest"]
    assert server.call("PUT", alias, {"to": digest}, headers={"If-None-Match": "*"}).status == 200
    words = [
        "main",
        "v1",
        "first",
        "prod",
        "feat/x",
        "refs/heads/main",
        "refs/heads/feat/x",
        commit,
        commit[:8],
    ]
    for word in words:
        answer = resolve(server, CONFIG, quote(word, safe=""))
        assert (answer.status, answer.headers.get("X-Repo-Commit")) == (200, commit), word
        assert answer.body == files[CONFIG]


def test_each_kind_of_absence_has_its_own_code(server: Server, commit: str) -> None:
    def code(path: str) -> tuple[int, str | None]:
        answer = server.call("GET", path)
        assert answer.json.get("error") or answer.json["detail"]
        assert answer.headers["X-Request-Id"] if "error" in answer.json else answer.headers["Request-Id"]
        return answer.status, answer.headers.get("X-Error-Code")

    assert code("/api/models/acme/none") == (404, "RepoNotFound")
    assert code("/acme/none/resolve/main/x") == (404, "RepoNotFound")
    assert code("/api/models/gpt2") == code("/gpt2/resolve/main/config.json") == (404, "RepoNotFound")
    assert code("/api/models/no..name/x") == (404, "RepoNotFound")
    assert code("/api/datasets/acme/tone") == (404, "RepoNotFound")
    assert code(f"/api/models/{TONE}/revision/v9") == (404, "RevisionNotFound")
    assert code(f"/api/models/{TONE}/tree/refs%2Fpr%2F1") == (404, "RevisionNotFound")
    assert code(f"/api/models/{TONE}/tree/main/additional_chat_templates") == (404, "EntryNotFound")
    missing = resolve(server, "merges.txt", method="HEAD")
    assert (missing.status, missing.headers["X-Error-Code"]) == (404, "EntryNotFound")
    assert missing.headers["X-Repo-Commit"] == commit  # otherwise a client requests it every time


def test_a_repository_hidden_from_the_caller_is_absent(server: Server, commit: str) -> None:
    stranger = server.token("eve", "writer", ("evil",))
    for path in (f"/api/models/{TONE}", f"/api/models/{TONE}/tree/main", f"/{TONE}/resolve/main/{CONFIG}"):
        there = server.call("GET", path, token=stranger)
        none = server.call("GET", path.replace(TONE, "acme/none"), token=stranger)
        assert (there.status, there.headers["X-Error-Code"]) == (404, "RepoNotFound")
        assert there.body == none.body.replace(b"acme/none", TONE.encode())
    assert server.call("GET", "/api/models", token=stranger).json == []


def test_a_bad_token_and_a_missing_token_get_different_errors(server: Server, commit: str) -> None:
    bad = server.call("GET", f"/api/models/{TONE}", token="hf_nonsense")
    assert bad.status == 401
    assert bad.headers["X-Error-Message"] == "Invalid credentials in Authorization header"
    none = server.call("GET", f"/api/models/{TONE}", token=None)
    assert (none.status, none.headers["X-Error-Code"]) == (401, "RepoNotFound")


def test_public_adapters_are_read_without_a_token_if_the_operator_allows_it(
    start: Callable[..., Server], files: dict[str, bytes]
) -> None:
    server = start(anonymous_read=True)
    create(server, visibility="public")
    create(server, "acme/closed")
    put(server, files)
    assert server.call("GET", f"/{TONE}/resolve/main/{CONFIG}", token=None).status == 200
    assert server.call("GET", "/api/models/acme/closed", token=None).status == 404
    assert [found["id"] for found in server.call("GET", "/api/models", token=None).json] == [TONE]


def test_info_combines_the_card_and_the_registry(
    server: Server, commit: str, files: dict[str, bytes]
) -> None:
    said = server.call("GET", f"/api/models/{TONE}?blobs=True&securityStatus=true").json
    assert (said["id"], said["sha"], said["private"]) == (TONE, commit, True)
    assert {
        "peft",
        "lora",
        "base_model:org/tiny",
        "base_model:adapter:org/tiny",
        "warm",
        "license:mit",
    } <= set(said["tags"])
    assert said["cardData"]["license"] == "mit"
    assert said["library_name"] == "peft"
    assert said["lastModified"].endswith("Z")
    assert said["securityRepoStatus"]["scansDone"] is True
    siblings = {found["rfilename"]: found for found in said["siblings"]}
    assert siblings[WEIGHTS]["lfs"]["sha256"] == hashlib.sha256(files[WEIGHTS]).hexdigest()
    assert {path: found["size"] for path, found in siblings.items()} == {
        path: len(data) for path, data in files.items()
    }
    asked = server.call("GET", f"/api/models/{TONE}?expand[]=sha&expand=author").json
    assert asked == {"_id": said["_id"], "id": TONE, "sha": commit, "author": "acme"}


def test_a_tree_and_paths_info_agree_and_come_in_pages(server: Server, commit: str) -> None:
    address = f"/api/models/{TONE}/tree/main"
    whole = server.call("GET", address).json
    assert [found["path"] for found in whole] == [README, CONFIG, WEIGHTS]
    first = server.call("GET", f"{address}?limit=2")
    assert first.headers["Link"] == f'<{server.url}{address}?limit=2&cursor=2>; rel="next"'
    rest = server.call("GET", first.headers["Link"].split(">")[0].removeprefix(f"<{server.url}"))
    assert first.json + rest.json == whole
    assert "Link" not in rest.headers
    form = b"paths=README.md&paths=none&expand=False"
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    asked = f"/api/models/{TONE}/paths-info/main"
    assert server.call("POST", asked, form, headers=kind).json == whole[:1]
    assert server.call("POST", asked, {"paths": [README], "expand": False}).json == whole[:1]
    assert server.call("POST", asked, b"\xff", headers=kind).status == 400


def test_the_last_commit_of_a_file_is_the_one_that_changed_it(server: Server, commit: str) -> None:
    newer = put(server, {README: CARD + b"more"})
    found = server.call("GET", f"/api/models/{TONE}/tree/main?expand=true").json
    last = {entry["path"]: entry["lastCommit"]["id"] for entry in found}
    assert last == {README: newer, CONFIG: commit, WEIGHTS: commit}


def test_checkpoints_lie_in_folders_of_a_branch(server: Server, commit: str, files: dict[str, bytes]) -> None:
    server.call("POST", f"/api/models/{TONE}/branch/steps")
    put(server, {f"checkpoint-1/{CONFIG}": files[CONFIG]}, "steps")
    flat = server.call("GET", f"/api/models/{TONE}/tree/steps").json
    assert [entry["type"] for entry in flat if entry["path"] == "checkpoint-1"] == ["directory"]
    inside = server.call("GET", f"/api/models/{TONE}/tree/steps/checkpoint-1").json
    assert [entry["path"] for entry in inside] == [f"checkpoint-1/{CONFIG}"]
    deep = server.call("GET", f"/api/models/{TONE}/tree/steps?recursive=true").json
    assert {entry["path"] for entry in deep} == {*files, "checkpoint-1", f"checkpoint-1/{CONFIG}"}
    refused = send(server, lines({f"checkpoint-1/{CONFIG}": files[CONFIG]}))
    assert refused.status == 400
    assert "commit checkpoints to a branch" in refused.json["error"]


def test_aliases_are_branches_and_versions_are_tags(server: Server, commit: str) -> None:
    server.call("POST", f"/api/models/{TONE}/tag/main", {"tag": "first"})
    digest = server.call("GET", f"/api/v1/adapters/{TONE}/versions/1").json["digest"]
    server.call(
        "PUT", f"/api/v1/adapters/{TONE}/aliases/prod", {"to": digest}, headers={"If-None-Match": "*"}
    )
    said = server.call("GET", f"/api/models/{TONE}/refs?include_prs=1").json
    assert [found["ref"] for found in said["branches"]] == ["refs/heads/main", "refs/heads/prod"]
    assert [found["ref"] for found in said["tags"]] == ["refs/tags/first", "refs/tags/v1"]
    assert {found["targetCommit"] for kind in ("branches", "tags") for found in said[kind]} == {commit}
    assert (said["converts"], said["pullRequests"]) == ([], [])


def test_commits_come_newest_first_in_pages(server: Server, commit: str) -> None:
    newer = put(server, {README: b"# Other\n"})
    page = server.call("GET", f"/api/models/{TONE}/commits/main?limit=1&expand[]=formatted")
    assert [found["id"] for found in page.json] == [newer]
    assert page.json[0]["formatted"] == {"title": "put", "message": ""}
    assert page.json[0]["authors"] == [{"user": "root"}]
    rest = server.call("GET", page.headers["Link"].split(">")[0].removeprefix(f"<{server.url}")).json
    assert rest[0]["id"] == commit


def test_an_adapter_under_its_old_name_leads_to_the_new_one(
    server: Server, commit: str, files: dict[str, bytes]
) -> None:
    moved = server.call("POST", "/api/repos/move", {"fromRepo": TONE, "toRepo": "acme/tune", "type": "model"})
    assert moved.status == 200
    answer = resolve(server, WEIGHTS, method="HEAD")
    assert (answer.status, answer.headers["Location"]) == (307, f"/acme/tune/resolve/main/{WEIGHTS}")
    said = send(server, lines({README: CARD}), "main")
    assert (said.status, said.headers["Location"]) == (307, "/api/models/acme/tune/commit/main")
    stranger = server.token("eve", "writer", ("evil",))
    assert server.call("GET", f"/api/models/{TONE}", token=stranger).status == 404
    server.call("POST", "/api/repos/move", {"fromRepo": "acme/tune", "toRepo": TONE})
    assert resolve(server, WEIGHTS, method="HEAD").status == 200


@pytest.mark.usefixtures("stores_downloads_soon")
def test_a_download_of_the_weights_is_counted_once(server: Server, commit: str) -> None:
    resolve(server, WEIGHTS, method="HEAD")
    resolve(server, CONFIG)
    resolve(server, WEIGHTS, Range="bytes=10-")
    resolve(server, WEIGHTS)

    def counted() -> int:
        return server.registry().versions.get(Ref(AdapterName.parse(TONE), Number(1))).downloads

    assert until(counted, bool) == 1


def test_a_stored_base_is_read_only_under_each_of_its_names(server: Server, tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "base")
    registry = server.registry()
    base_registry.register_base(registry, open_checkpoint(folder), ("org/tiny", "tiny"), store=True)
    for name in ("org/tiny", "tiny"):
        said = server.call("GET", f"/api/models/{name}").json
        assert {found["rfilename"] for found in said["siblings"]} >= {"config.json", "model.safetensors"}
        config = server.call("GET", f"/{name}/resolve/main/config.json")
        assert config.body == (folder / "config.json").read_bytes()
        assert config.headers["X-Repo-Commit"] == said["sha"]
        assert server.call("GET", f"/{name}/resolve/{said['sha'][:10]}/config.json").status == 200
    other = server.call("GET", "/org/tiny/resolve/v1/config.json")
    assert (other.status, other.headers["X-Error-Code"]) == (404, "RevisionNotFound")
    assert "for the adapter only" in other.json["error"]
    refused = send(server, lines({README: CARD}), name="org/tiny")
    assert refused.status == 409
    assert "another name, such as org/tiny-lora" in refused.json["error"]


def test_lists_are_narrowed_ordered_and_paged(server: Server, files: dict[str, bytes]) -> None:
    for name in ("acme/c", "acme/a", "other/b"):
        create(server, name)
        put(server, files, name=name)
    create(server, "acme/empty")

    def listed(query: str) -> list[str]:
        return [found["id"] for found in server.call("GET", f"/api/models?{query}").json]

    assert listed("") == ["acme/a", "acme/c", "acme/empty", "other/b"]
    assert listed("author=acme&filter=lora") == ["acme/a", "acme/c"]
    assert listed("search=OTHER") == ["other/b"]
    assert listed("search=b+other") == ["other/b"]
    assert listed("search=b+none") == []
    assert listed("filter=base_model:adapter:org/tiny,warm&filter=peft") == ["acme/a", "acme/c", "other/b"]
    assert listed("filter=ia3") == listed("gated=true") == []
    assert listed("sort=createdAt&direction=1") == ["acme/c", "acme/a", "other/b", "acme/empty"]
    assert listed("sort=createdAt")[0] == "acme/empty"
    for query in ("limit=2", "limit=2&sort=createdAt", "limit=1&filter=lora"):
        found, address = [], f"/api/models?{query}"
        while address:
            page = server.call("GET", address)
            found += [item["id"] for item in page.json]
            address = page.headers.get("Link", "").split(">")[0].removeprefix(f"<{server.url}")
        assert found == listed(query.replace("limit=2", "limit=1000").replace("limit=1&", ""))
    full = server.call("GET", "/api/models?author=other&full=true").json[0]
    assert {item["rfilename"] for item in full["siblings"]} == set(files)
    assert server.call("GET", "/api/models?sort=beauty").status == 400
    assert server.call("GET", "/api/models?cursor=x").status == 400
