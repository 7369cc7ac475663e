"""Bases over the Hub protocol: a reader without access gets the answer for a missing base, but can still read
adapters trained on it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adaptry.bases.hf_folder import open_checkpoint
from adaptry.operations import base_registry
from adaptry.testing.samples import tiny_base
from adaptry_api.testing import RawResponse, Server

from .pushed import TONE, WEIGHTS, create, files_of, put

BASE = "org/tiny"


@pytest.fixture
def base(server: Server, tmp_path: Path) -> str:
    """The id of a stored base, with an adapter on it."""
    info = base_registry.register_base(
        server.registry(), open_checkpoint(tiny_base(tmp_path / "base")), (BASE,), store=True
    )
    create(server)
    put(server, files_of(tmp_path / "tone"))
    return str(info.id)


@pytest.fixture
def stranger(server: Server) -> str:
    return server.token("stranger", "writer", ("acme",))


ADDRESSES = (
    f"/api/models/{BASE}",
    f"/api/models/{BASE}/revision/main",
    f"/api/models/{BASE}/tree/main",
    f"/{BASE}/resolve/main/config.json",
    "/api/models/ORG/tiny",
    "/ORG/Tiny/resolve/main/config.json",
    f"/api/v1/bases/find?key={BASE}",
)


def shape(answer: RawResponse, name: str) -> tuple[int, str | None, bytes]:
    """Everything by which a caller can distinguish two responses, without the requested name."""
    body = re.sub(rb'"request":"[0-9a-f]+"', b"", answer.body)
    return answer.status, answer.headers.get("X-Error-Code"), re.sub(name.encode(), b"NAME", body, flags=re.I)


def test_a_private_base_looks_absent_to_others(server: Server, base: str, stranger: str) -> None:
    for address in ADDRESSES:
        asked = server.call("GET", address, token=stranger)
        other = server.call("GET", address.lower().replace("tiny", "none"), token=stranger)
        assert asked.status == 404, address
        assert shape(asked, BASE) == shape(other, "org/none"), address


def test_an_adapter_on_a_hidden_base_shows_the_base_in_its_config(
    server: Server, base: str, stranger: str
) -> None:
    said = server.call("GET", f"/api/models/{TONE}", token=stranger).json
    assert f"base_model:{BASE}" in said["tags"]
    assert server.call("GET", f"/{TONE}/resolve/main/{WEIGHTS}", token=stranger).status == 200
    merged = server.call("GET", f"/{TONE}.merged/resolve/main/config.json", token=stranger)
    assert merged.status == 400
    assert "is not registered by content" in merged.json["error"]


def test_a_base_made_visible_by_an_administrator_can_be_read(
    server: Server, base: str, stranger: str
) -> None:
    edited = server.call("PATCH", f"/api/v1/bases/{base}", {"visibility": "internal"})
    assert (edited.status, edited.json["visibility"]) == (200, "internal")
    assert server.call("GET", f"/api/models/{BASE}", token=stranger).json["private"] is False
    assert (
        server.call("PATCH", f"/api/v1/bases/{base}", {"visibility": "public"}, token=stranger).status == 403
    )
    assert server.call("PATCH", f"/api/v1/bases/{base}", {"visibility": "secret"}).status == 422
