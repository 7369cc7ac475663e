"""A stored base stays readable when clients try to create a repository under its name."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from adaptry.bases.hf_folder import open_checkpoint
from adaptry.operations import base_registry
from adaptry.testing.samples import tiny_base
from adaptry_api.testing import Server

from .clients import run_client
from .pushed import CARD, README, create, lines, send

BASE = "org/tiny"


@pytest.fixture
def config(server: Server, tmp_path: Path) -> bytes:
    """The config of a base that is stored here."""
    folder = tiny_base(tmp_path / "base")
    base_registry.register_base(server.registry(), open_checkpoint(folder), (BASE, "org/again"), store=True)
    return (folder / "config.json").read_bytes()


def is_readable(server: Server, config: bytes) -> bool:
    return server.call("GET", f"/{BASE}/resolve/main/config.json").body == config


@pytest.mark.parametrize("name", [BASE, "org/again", "org/Tiny"])
def test_creating_an_adapter_of_a_bases_name_is_409_with_the_reason(
    server: Server, config: bytes, name: str
) -> None:
    answer = create(server, name)
    assert answer.status == 409
    assert "is the name of a base" in answer.json["error"]
    assert answer.json["url"].startswith(server.url)  # clients read it even then
    assert is_readable(server, config)


def test_moving_an_adapter_to_a_bases_name_is_409(server: Server, config: bytes) -> None:
    create(server, "org/other")
    moved = server.call("POST", "/api/repos/move", {"fromRepo": "org/other", "toRepo": BASE})
    assert moved.status == 409
    assert is_readable(server, config)


def test_a_real_client_shows_the_conflict_and_the_base_stays(
    server: Server, config: bytes, tmp_path: Path
) -> None:
    code = """
created = said(HfHubHTTPError, lambda: api.create_repo("org/tiny"))
uploaded = said(HfHubHTTPError, lambda: \
api.upload_file(path_or_fileobj=b"x", path_in_repo="README.md", repo_id="org/tiny"))
api.create_repo("org/tiny", exist_ok=True)
answer = [created, uploaded, Path(hf_hub_download("org/tiny", "config.json")).read_text()]
"""
    (created, uploaded, read), _ = run_client(server, code, tmp_path)
    assert "is the name of a base" in created
    assert "org/tiny is a base" in uploaded
    assert read.encode() == config


def test_an_older_adapter_with_a_bases_name_does_not_hide_the_base_and_can_be_deleted(
    server: Server, config: bytes
) -> None:
    """Older servers allowed this: the adapter exists, and nothing was ever pushed to it."""
    create(server, "org/other")
    with sqlite3.connect(server.data / "catalog.sqlite") as catalog:
        catalog.execute("UPDATE adapters SET name = ? WHERE name = 'org/other'", (BASE,))
    catalog.close()
    assert is_readable(server, config)
    refused = send(server, lines({README: CARD}), name=BASE)
    assert (refused.status, "org/tiny is a base" in refused.json["error"]) == (409, True)
    assert is_readable(server, config)
    assert server.call("DELETE", "/api/repos/delete", {"name": BASE}).status == 200
    assert is_readable(server, config)
