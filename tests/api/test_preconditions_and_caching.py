"""Mutable resources are never cached and change only from the state that the caller saw; immutable ones may
be cached.
"""

from __future__ import annotations

import hashlib

import pytest

from adaptry.adapters.adapter import Adapter
from adaptry.operations.transfer import push
from adaptry_api.testing import Server, assert_problem

AT = "/api/v1/adapters/acme/tone"
PROD = f"{AT}/aliases/prod"


@pytest.fixture
def digest(server: Server, tone: Adapter) -> str:
    return str(push(server.registry(), tone, "acme/tone").version.digest)


def test_an_alias_is_created_only_if_it_is_absent(server: Server, digest: str) -> None:
    created = server.call("PUT", PROD, {"to": digest}, headers={"If-None-Match": "*"})
    assert (created.status, created.headers["ETag"]) == (200, f'"{created.json["generation"]}"')
    again = server.call("PUT", PROD, {"to": digest}, headers={"If-None-Match": "*"})
    assert_problem(again, 409, "conflict")


def test_an_alias_moves_only_from_the_generation_that_was_seen(server: Server, digest: str) -> None:
    first = server.call("PUT", PROD, {"to": digest}, headers={"If-None-Match": "*"})
    moved = server.call("PUT", PROD, {"to": digest}, headers={"If-Match": first.headers["ETag"]})
    assert moved.json["generation"] > first.json["generation"]
    stale = server.call("PUT", PROD, {"to": digest}, headers={"If-Match": first.headers["ETag"]})
    assert_problem(stale, 409, "conflict")
    assert_problem(server.call("DELETE", PROD, headers={"If-Match": first.headers["ETag"]}), 409, "conflict")
    assert server.call("DELETE", PROD, headers={"If-Match": moved.headers["ETag"]}).status == 204
    assert_problem(server.call("GET", PROD), 404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_move_must_state_the_generation_that_was_seen(server: Server, digest: str, method: str) -> None:
    server.call("PUT", PROD, {"to": digest}, headers={"If-None-Match": "*"})
    body = {"to": digest} if method == "PUT" else None
    assert_problem(server.call(method, PROD, body), 428, "precondition_required")
    for headers in ({"If-Match": "1"}, {"If-Match": "*"}, {"If-Match": 'W/"1"'}):
        assert_problem(server.call(method, PROD, body, headers=headers), 400, "invalid")
    both = {"If-Match": '"1"', "If-None-Match": "*"}
    for headers in ({"If-None-Match": '"1"'}, both):
        assert_problem(server.call("PUT", PROD, {"to": digest}, headers=headers), 400, "invalid")


@pytest.mark.parametrize("alias", ["latest", "main", "7", "v7", "deadbeef", "refs", "a b", "é", "-x"])
def test_an_ambiguous_name_cannot_be_an_alias(server: Server, digest: str, alias: str) -> None:
    answer = server.call(
        "PUT", f"{AT}/aliases/{alias.replace(' ', '%20')}", {"to": digest}, headers={"If-None-Match": "*"}
    )
    assert_problem(answer, 400, "invalid_ref")


def test_responses_about_movable_objects_must_be_revalidated(server: Server, digest: str) -> None:
    server.call("PUT", PROD, {"to": digest}, headers={"If-None-Match": "*"})
    for path in (AT, f"{AT}/versions/1", f"{AT}/versions/prod", f"{AT}/versions/latest", PROD):
        seen = server.call("GET", path)
        assert seen.headers["Cache-Control"] == "private, no-cache", path
        for known in (seen.headers["ETag"], "*"):
            again = server.call("GET", path, headers={"If-None-Match": known})
            assert (again.status, again.body) == (304, b""), path


@pytest.mark.parametrize("path", ["/acme/tone/resolve/main/{}", "/acme/tone/raw/main/{}"])
@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_conditional_downloads_follow_rfc_9110(server: Server, digest: str, path: str, file: str) -> None:
    at = path.format(file)
    tag = server.call("GET", at).headers["ETag"]
    for method in ("GET", "HEAD"):
        for header, value, status in (
            ("If-None-Match", "*", 304),
            ("If-None-Match", tag, 304),
            ("If-None-Match", '"other"', 200),
            ("If-Match", "*", 200),
            ("If-Match", f'"other", {tag}', 200),
            ("If-Match", '"other"', 412),
        ):
            assert server.call(method, at, headers={header: value}).status == status, (method, header, value)


def test_a_changed_adapter_has_another_etag(server: Server, digest: str) -> None:
    before = server.call("GET", AT).headers["ETag"]
    assert server.call("PATCH", AT, {"description": "warmer"}).status == 200
    after = server.call("GET", AT, headers={"If-None-Match": before})
    assert (after.status, after.json["description"]) == (200, "warmer")


def test_an_edit_of_an_unseen_state_is_refused(server: Server, digest: str) -> None:
    seen = server.call("GET", AT).headers["ETag"]
    assert server.call("PATCH", AT, {"description": "one"}, headers={"If-Match": seen}).status == 200
    for method, body in (("PATCH", {"description": "two"}), ("DELETE", None)):
        assert_problem(server.call(method, AT, body, headers={"If-Match": seen}), 412, "conflict")
    assert server.call("GET", AT).json["description"] == "one"


def test_listings_are_not_cached(server: Server, digest: str) -> None:
    answer = server.call("GET", f"{AT}/versions")
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert "Authorization" in answer.headers["Vary"]


def test_a_manifest_hashes_to_its_digest_and_may_be_cached_permanently(server: Server, digest: str) -> None:
    answer = server.call("GET", f"{AT}/revisions/{digest}/manifest")
    assert f"sha256:{hashlib.sha256(answer.body).hexdigest()}" == digest
    assert "immutable" in answer.headers["Cache-Control"]
    assert "private" in answer.headers["Cache-Control"]


def test_pushing_an_existing_revision_returns_its_version(server: Server, tone: Adapter, digest: str) -> None:
    again = push(server.registry(), tone, "acme/tone")
    assert (again.is_new, str(again.version.digest), again.version.number) == (False, digest, 1)
