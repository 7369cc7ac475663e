"""Creating, inspecting, changing and deleting repositories, and the owner of a token."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry_api.testing import Server

from .pushed import CARD, README, TONE, create, files_of, put


def test_a_token_is_a_user_of_its_own_namespace_and_a_member_of_the_others(server: Server) -> None:
    alice = server.token("alice", "writer", ("acme", "alice"))
    said = server.call("GET", "/api/whoami-v2", token=alice).json
    assert (said["name"], [org["name"] for org in said["orgs"]]) == ("alice", ["acme"])
    assert said["auth"]["accessToken"]["role"] == "write"
    robot = server.token("a build robot", "reader", ("team-*", "acme"))
    said = server.call("GET", "/api/whoami-v2", token=robot).json
    assert (said["name"], said["orgs"], said["auth"]["accessToken"]["role"]) == ("acme", [], "read")


def test_a_name_without_a_namespace_is_in_the_callers_own(server: Server) -> None:
    alice = server.token("alice", "writer", ("acme", "alice"))
    made = server.call("POST", "/api/repos/create", {"name": "tone", "organization": None}, token=alice)
    assert made.json == {"url": f"{server.url}/alice/tone", "name": "alice/tone", "id": "alice/tone"}


def test_creating_an_existing_repository_is_a_conflict_with_its_address(server: Server) -> None:
    assert create(server).status == 200
    again = create(server)
    assert (again.status, again.json["url"]) == (409, f"{server.url}/{TONE}")


@pytest.mark.parametrize("more", [{"private": False}, {"visibility": "public"}])
def test_old_and_new_clients_set_the_visibility(server: Server, more: dict[str, object]) -> None:
    create(server, **more)
    assert server.call("GET", f"/api/models/{TONE}").json["private"] is False
    old = {"private": True} if "private" in more else {"visibility": "private"}
    assert server.call("PUT", f"/api/models/{TONE}/settings", old).status == 200
    assert server.call("GET", f"/api/models/{TONE}").json["private"] is True


def test_only_models_can_be_created_and_none_can_be_gated(server: Server) -> None:
    for kind in ("dataset", "space"):
        assert server.call("POST", "/api/repos/create", {"name": TONE, "type": kind}).status == 400
    create(server)
    gated = server.call("PUT", f"/api/models/{TONE}/settings", {"gated": "auto"})
    assert gated.status == 400
    assert "cannot be gated" in gated.json["error"]
    assert server.call("PUT", f"/api/models/{TONE}/settings", {"gated": False}).status == 200


def test_a_deleted_repository_is_absent(server: Server) -> None:
    create(server)
    body = {"name": "tone", "organization": "acme", "type": "model"}
    assert server.call("DELETE", "/api/repos/delete", body).status == 200
    gone = server.call("DELETE", "/api/repos/delete", body)
    assert (gone.status, gone.headers["X-Error-Code"]) == (404, "RepoNotFound")


def test_an_adapter_cannot_be_moved_to_a_taken_name(server: Server) -> None:
    create(server)
    create(server, "acme/other")
    assert server.call("POST", "/api/repos/move", {"fromRepo": TONE, "toRepo": "acme/other"}).status == 409
    assert server.call("POST", "/api/repos/move", {"fromRepo": TONE, "toRepo": "api/x"}).status == 400


def test_ambiguous_revision_names_are_refused(server: Server, tmp_path: Path) -> None:
    create(server)
    put(server, files_of(tmp_path / "tone"))
    at = f"/api/models/{TONE}"
    assert server.call("POST", f"{at}/branch/main", {}).status == 409  # it exists, and clients continue
    assert server.call("POST", f"{at}/branch/refs%2Fpr%2F5", {}).status == 400
    assert server.call("POST", f"{at}/tag/main", {"tag": "v1"}).status == 409
    assert server.call("POST", f"{at}/tag/main", {"tag": "v7"}).status == 400
    assert server.call("DELETE", f"{at}/tag/v1").status == 403
    assert server.call("DELETE", f"{at}/branch/main").status == 403
    assert server.call("POST", f"{at}/tag/none", {"tag": "x"}).headers["X-Error-Code"] == "RevisionNotFound"
    assert server.call("POST", f"{at}/branch/x").status == 200  # without a body at all
    assert server.call("POST", f"{at}/branch/x", {}).status == 409
    assert server.call("DELETE", f"{at}/branch/x").status == 200
    assert server.call("DELETE", f"{at}/branch/x").headers["X-Error-Code"] == "RevisionNotFound"


def test_squashing_leaves_one_commit_and_every_version(server: Server, tmp_path: Path) -> None:
    create(server)
    put(server, files_of(tmp_path / "tone"))
    put(server, {README: CARD})
    assert server.call("POST", f"/api/models/{TONE}/super-squash/main", {"message": "one"}).status == 200
    said = server.call("GET", f"/api/models/{TONE}/commits/main").json
    assert [commit["title"] for commit in said] == ["one"]
    for nothing in ("", "\n \n", "\u2028"):
        answer = server.call("POST", f"/api/models/{TONE}/super-squash/main", {"message": nothing})
        assert answer.status == 200
    assert server.call("GET", f"/api/models/{TONE}/revision/v1").status == 200
