"""Servers on separate machines act as one if they share secrets and a spool folder."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from adaptry.core.errors import Invalid, Unauthenticated, Unavailable
from adaptry.core.refs import AdapterName
from adaptry.storage import tokens
from adaptry.storage.connect import open_local
from adaptry.testing.postgres import PostgresServer
from adaptry_api.admin_token import admit_admin_token
from adaptry_api.app_state import AppState
from adaptry_api.settings import ServerSettings
from adaptry_api.signed_grants import read_signing_secret
from adaptry_api.testing import Server, running_server

TONE = AdapterName.parse("acme/tone")
CONTENT = random.Random(3).randbytes(2_500_000)
PART = 1_000_000
Pair = tuple[Server, Server]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "signing-secret"
    path.write_text("5" * 64 + "\n")
    return path


@pytest.fixture
def apart(postgres: PostgresServer, s3_place: str, secret: Path, tmp_path: Path) -> Iterator[Pair]:
    """Two servers that share only a database, a bucket, a secret and a folder."""
    told = ServerSettings(
        data=tmp_path / "one",
        catalog=postgres.database(),
        blobs=s3_place,
        signing_secret=secret,
        upload_spool=tmp_path / "spools",
        whole_bytes=PART,
        part_bytes=PART,
    )
    with running_server(told) as one, running_server(replace(told, data=tmp_path / "other")) as other:
        yield one, other


def batch(server: Server) -> dict[str, Any]:
    """The response of the LFS batch route for a large file. (`Any`: JSON.)"""
    asked = {
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "objects": [{"oid": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT)}],
    }
    kind = {"Content-Type": "application/vnd.git-lfs+json"}
    answer = server.call("POST", f"/{TONE}.git/info/lfs/objects/batch", asked, headers=kind)
    return answer.json["objects"][0]["actions"]["upload"]  # type: ignore[no-any-return]


def path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def test_parts_of_a_large_file_may_go_to_different_servers(apart: Pair) -> None:
    one, other = apart
    one.call("POST", "/api/v1/adapters", {"name": str(TONE)})
    upload = batch(one)
    upload["header"].pop("chunk_size")
    for number, address in upload["header"].items():
        at = (int(number) - 1) * PART
        server = apart[int(number) % 2]
        assert server.call("PUT", path_of(address), CONTENT[at : at + PART], token=None).status == 200
    said = {
        "oid": hashlib.sha256(CONTENT).hexdigest(),
        "parts": [{"partNumber": int(number), "etag": '"x"'} for number in upload["header"]],
    }
    kind = {"Content-Type": "application/vnd.git-lfs+json"}
    joined = other.call("POST", path_of(upload["href"]), json.dumps(said).encode(), token=None, headers=kind)
    assert (joined.status, joined.body) == (200, b"{}")


def test_a_server_with_another_secret_accepts_no_part(apart: Pair, tmp_path: Path) -> None:
    one, _ = apart
    one.call("POST", "/api/v1/adapters", {"name": str(TONE)})
    address = batch(one)["header"]["1"]
    with running_server(
        ServerSettings(data=tmp_path / "stranger", upload_spool=tmp_path / "spools")
    ) as stranger:
        assert stranger.call("PUT", path_of(address), CONTENT[:PART], token=None).status == 401


def test_a_request_repeated_at_another_server_is_carried_out_once(apart: Pair) -> None:
    one, other = apart
    key = {"Idempotency-Key": "k1"}
    first = one.call("POST", "/api/v1/adapters", {"name": str(TONE)}, headers=key)
    again = other.call("POST", "/api/v1/adapters", {"name": str(TONE)}, headers=key, token=one.admin)
    assert (first.status, again.status, again.headers.get("Idempotent-Replay")) == (201, 201, "true")
    assert again.json == first.json


def test_the_administrators_token_is_read_from_the_file_and_stays_revoked(tmp_path: Path) -> None:
    registry = open_local(tmp_path / "registry")
    secret = tokens.create_token(open_local(tmp_path / "elsewhere").catalog, "ada", "admin", ("*",))
    file = tmp_path / "admin-token"
    file.write_text(f"{secret}\n")
    for _ in range(2):  # as each server does when it starts
        admit_admin_token(file, registry.catalog)
    (known,) = tokens.list_tokens(registry.catalog)
    assert tokens.identify(registry.catalog, secret).role == "admin"
    tokens.revoke_token(registry.catalog, known.id)
    admit_admin_token(file, registry.catalog)
    with pytest.raises(Unauthenticated):
        tokens.identify(registry.catalog, secret)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("adr_pat_short\n", Invalid, "not a complete"),
        ("\n", Invalid, "is empty"),
        (None, Unavailable, "cannot read"),
    ],
)
def test_a_file_that_holds_no_token_is_refused(
    tmp_path: Path, text: str | None, error: type[Exception], says: str
) -> None:
    file = tmp_path / "admin-token"
    if text is not None:
        file.write_text(text)
    with pytest.raises(error, match=says):
        admit_admin_token(file, open_local(tmp_path / "registry").catalog)


def test_a_secret_that_can_be_guessed_is_refused_at_the_start(secret: Path, tmp_path: Path) -> None:
    secret.write_text("swordfish\n")
    with pytest.raises(Invalid, match="too short"):
        AppState(ServerSettings(data=tmp_path / "data", signing_secret=secret))
    secret.write_text("5" * 64)
    assert read_signing_secret(secret) != b"5" * 32
