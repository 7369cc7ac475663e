"""A server with another Hub behind it. A second Adaptry server stands in for that Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.bases.hf_folder import open_checkpoint
from adaptry.operations import base_registry
from adaptry.testing.samples import tiny_base
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

from .clients import run_client
from .pushed import CARD, CONFIG, README, TONE, create, files_of, put

BASE = "org/tiny"
MODEL = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "base")


@pytest.fixture
def hub(server: Server, folder: Path, tmp_path: Path) -> Server:
    """A Hub with a base and an adapter."""
    base_registry.register_base(server.registry(), open_checkpoint(folder), (BASE,), store=True)
    create(server)
    put(server, files_of(tmp_path / "tone"))
    return server


@pytest.fixture
def front(hub: Server, tmp_path: Path) -> Iterator[Server]:
    """A server that stores nothing itself."""
    settings = ServerSettings(
        data=tmp_path / "front", upstream=hub.url, upstream_token=hub.admin, anonymous_read=True
    )
    with running_server(settings) as started:
        yield started


def test_a_missing_repository_is_read_through_and_then_cached(
    hub: Server, front: Server, folder: Path
) -> None:
    address = f"/{BASE}/resolve/main/{MODEL}"
    said = front.call("GET", f"/api/models/{BASE}").json
    there = hub.call("GET", f"/api/models/{BASE}").json
    assert (said["sha"], said["siblings"]) == (there["sha"], there["siblings"])
    head = front.call("HEAD", address)
    assert head.headers["ETag"] == hub.call("HEAD", address).headers["ETag"]
    whole = (folder / MODEL).read_bytes()
    assert front.call("GET", address).body == whole
    (hub.data / "catalog.sqlite").rename(hub.data / "gone")  # from now on it does not answer
    assert front.call("GET", address).body == whole
    assert front.call("GET", address, headers={"Range": "bytes=5-9"}).body == whole[5:10]


def test_a_range_is_read_through(front: Server, folder: Path) -> None:
    part = front.call("GET", f"/{BASE}/resolve/main/{MODEL}", headers={"Range": "bytes=5-9"})
    assert (part.status, part.body) == (206, (folder / MODEL).read_bytes()[5:10])


def test_bytes_with_another_digest_are_neither_delivered_completely_nor_cached(
    hub: Server, front: Server, folder: Path
) -> None:
    whole = (folder / MODEL).read_bytes()
    (stored,) = (
        path for path in (hub.data / "blobs").rglob("*") if path.is_file() and path.read_bytes() == whole
    )
    stored.chmod(0o644)
    stored.write_bytes(whole[:-1] + b"!")
    answer = front.call("GET", f"/{BASE}/resolve/main/{MODEL}")
    assert answer.status == 500
    assert "do not match its id" in answer.json["error"]
    stored.write_bytes(whole)
    assert front.call("GET", f"/{BASE}/resolve/main/{MODEL}").body == whole


def test_a_namespace_of_this_server_is_never_looked_up_upstream(front: Server) -> None:
    assert front.call("GET", f"/{TONE}/resolve/main/{CONFIG}").status == 200
    create(front, "acme/other")
    put(front, {README: CARD}, name="acme/other")
    absent = front.call("GET", f"/{TONE}/resolve/main/{CONFIG}")
    assert (absent.status, absent.headers["X-Error-Code"]) == (404, "RepoNotFound")


def test_an_empty_adapter_does_not_hide_an_upstream_repository(front: Server) -> None:
    create(front, "acme/other")
    create(front, TONE)
    assert front.call("GET", f"/{TONE}/resolve/main/{CONFIG}").status == 200
    assert front.call("GET", "/api/models/acme/other").json["id"] == "acme/other"
    put(front, {README: CARD})
    assert front.call("GET", f"/{TONE}/resolve/main/{CONFIG}").status == 404
    assert front.call("GET", f"/{TONE}/resolve/main/{README}").body == CARD


def test_a_deleted_adapter_hides_an_upstream_repository_only_if_it_had_a_commit(
    front: Server,
) -> None:
    create(front, "acme/other")
    assert front.call("DELETE", "/api/v1/adapters/acme/other").status == 204
    assert front.call("GET", f"/api/models/{TONE}").status == 200
    create(front, "acme/other")
    put(front, {README: CARD}, name="acme/other")
    assert front.call("DELETE", "/api/v1/adapters/acme/other").status == 204
    assert front.call("GET", f"/api/models/{TONE}").status == 404


def test_an_empty_adapter_is_read_while_the_upstream_hub_is_down(hub: Server, front: Server) -> None:
    create(front, "acme/other")
    (hub.data / "catalog.sqlite").rename(hub.data / "gone")
    said = front.call("GET", "/api/models/acme/other")
    assert (said.status, said.json["id"]) == (200, "acme/other")


def test_a_name_that_differs_from_ours_only_by_case_is_not_looked_up_upstream(
    hub: Server, front: Server
) -> None:
    assert hub.call("POST", "/api/v1/adapters", {"name": "Solo/tone"}).status == 201
    assert front.call("GET", "/api/models/Solo/tone").status == 200
    create(front, "solo/other")
    put(front, {README: CARD}, name="solo/other")
    assert front.call("GET", "/api/models/Solo/tone").status == 404


def test_each_kind_of_upstream_absence_has_its_own_error(front: Server) -> None:
    for path, code in (
        ("/api/models/org/none", "RepoNotFound"),
        ("/api/models/gpt2", "RepoNotFound"),
        (f"/api/models/{BASE}/revision/v9", "RevisionNotFound"),
        (f"/api/models/{BASE}/revision/%2e%2e", "RevisionNotFound"),
        (f"/{BASE}/resolve/main/none.json", "EntryNotFound"),
    ):
        answer = front.call("GET", path)
        assert (answer.status, answer.headers["X-Error-Code"]) == (404, code), path


def test_many_names_that_the_upstream_hub_does_not_have_do_not_use_up_the_connections_to_it(
    front: Server,
) -> None:
    names = [f"org/absent-{number}" for number in range(20)]
    assert {front.call("GET", f"/api/models/{name}").status for name in names} == {404}
    assert front.call("GET", f"/api/models/{BASE}").status == 200


def test_a_caller_without_a_namespace_reads_nothing_from_upstream(front: Server) -> None:
    assert front.call("GET", f"/api/models/{BASE}", token=None).status == 404


def test_nothing_is_written_upstream(front: Server) -> None:
    body = {"files": [{"path": CONFIG, "size": 1}]}
    assert front.call("POST", f"/api/models/{TONE}/preupload/main", body).status == 404


def test_the_error_names_the_hub_that_does_not_respond(front: Server, tmp_path: Path) -> None:
    with running_server(ServerSettings(data=tmp_path / "lonely", upstream="http://127.0.0.1:9")) as lonely:
        answer = lonely.call("GET", f"/api/models/{BASE}")
    assert answer.status == 503
    assert "http://127.0.0.1:9" in answer.json["error"]


def test_a_client_downloads_a_whole_base_through_this_server(
    front: Server, folder: Path, tmp_path: Path
) -> None:
    code = "answer = {path.name: path.stat().st_size for path in Path(snapshot_download(name)).iterdir()}"
    answer, _ = run_client(front, code, tmp_path, name=BASE)
    assert answer == {path.name: path.stat().st_size for path in folder.iterdir()}
