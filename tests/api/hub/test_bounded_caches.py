"""Data cached in memory between requests: it is bounded, and permissions are checked at every request."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.core.digest import Digest
from adaptry_api.hub.computed_cache import ComputedCache
from adaptry_api.testing import Server

from .pushed import CARD, README, TONE, WEIGHTS, create, files_of, put

READS = (f"/api/models/{TONE}", f"/api/models/{TONE}/tree/main", f"/{TONE}/resolve/main/{WEIGHTS}")


def digest(number: int) -> Digest:
    return Digest.of(bytes([number]))


@pytest.fixture
def commit(server: Server, tmp_path: Path) -> str:
    """The id of acme/tone's only version."""
    create(server)
    return put(server, files_of(tmp_path / "tone") | {README: CARD})


def test_a_value_is_computed_once_for_its_digest() -> None:
    known = ComputedCache[int](2)
    assert known.get_or_compute(digest(1), lambda: 10) == known.get_or_compute(digest(1), lambda: 20) == 10


def test_the_total_weight_of_cached_values_is_bounded() -> None:
    known = ComputedCache[str](10, len)
    for number in range(100):
        assert known.get_or_compute(digest(number), lambda: "abcd") == "abcd"
        assert len(known) <= 2


def test_a_value_heavier_than_the_bound_is_returned_but_not_cached() -> None:
    known = ComputedCache[str](10, len)
    assert known.get_or_compute(digest(1), lambda: "a" * 11) == "a" * 11
    assert len(known) == 0


def test_an_adapter_made_private_is_absent_immediately_for_a_previous_reader(
    server: Server, commit: str
) -> None:
    stranger = server.token("eve", "reader", ("evil",))
    reads = (*READS, f"/{TONE}/resolve/{commit}/{WEIGHTS}")
    for visibility, status in (("public", 200), ("private", 404), ("public", 200)):
        changed = server.call("PUT", f"/api/models/{TONE}/settings", {"visibility": visibility})
        assert changed.status == 200, changed.body
        assert {server.call("GET", path, token=stranger).status for path in reads} == {status}


def test_a_deleted_adapter_is_absent_immediately_despite_cached_files(server: Server, commit: str) -> None:
    assert {server.call("GET", path).status for path in READS} == {200}
    gone = server.call("DELETE", "/api/repos/delete", {"name": TONE, "type": "model"})
    assert gone.status == 200, gone.body
    assert {server.call("GET", path).status for path in READS} == {404}


def test_a_cached_tree_of_one_adapter_is_not_a_revision_of_another(server: Server, commit: str) -> None:
    server.call("GET", f"/{TONE}/resolve/{commit}/{WEIGHTS}")
    server.call("POST", "/api/repos/create", {"name": "other", "organization": "acme", "type": "model"})
    answer = server.call("GET", f"/acme/other/resolve/{commit}/{WEIGHTS}")
    assert (answer.status, answer.headers["X-Error-Code"]) == (404, "RevisionNotFound")
