"""Requests that only the JavaScript client sends. The client itself runs in `tests/hub`."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from adaptry_api.testing import RawResponse, Server

from .pushed import CONFIG, TONE, WEIGHTS, create, files_of, lines, put, send
from .uploads import XetUpload, has, path_of
from .xet_bodies import XORB, chunk, file_entry, shard

LFS = {"Content-Type": "application/vnd.git-lfs+json"}
CONTENT = random.Random(7).randbytes(50_000)
OID = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def adapter(server: Server) -> None:
    create(server)


def batch(server: Server, transfers: list[str], algorithm: str) -> RawResponse:
    body = {
        "operation": "upload",
        "transfers": transfers,
        "hash_algo": algorithm,
        "objects": [{"oid": OID, "size": len(CONTENT)}],
    }
    return server.call("POST", f"/{TONE}.git/info/lfs/objects/batch", body, headers=LFS)


def test_a_batch_directs_clients_to_xet_if_they_offer_it(
    server: Server,
) -> None:
    ways = {
        (True, "sha_256"): "xet",
        (False, "sha_256"): "basic",
        (True, "sha256"): "basic",
        (False, "sha256"): "basic",
    }
    for (offers, algorithm), way in ways.items():
        answer = batch(server, ["basic", "multipart", *(["xet"] if offers else [])], algorithm)
        assert (answer.status, answer.json["transfer"]) == (200, way)
    assert batch(server, ["basic"], "sha512").status == 400


def test_a_file_sent_to_a_batchs_address_is_not_requested_again(server: Server) -> None:
    upload = batch(server, ["xet"], "sha_256").json["objects"][0]["actions"]["upload"]
    header = upload["header"]
    client = XetUpload(server, header["X-Xet-Access-Token"], path_of(header["X-Xet-Cas-Url"]))
    assert client.xorb(chunk(CONTENT), XORB).status == 200
    newer = server.call("GET", path_of(upload["href"])).json
    assert newer["casUrl"] == header["X-Xet-Cas-Url"], "a newer token is for the same upload"
    client = XetUpload(server, newer["accessToken"], client.address)
    assert client.shard(shard(file_entry(CONTENT, [(XORB, len(CONTENT), 0, 1)]))).status == 200
    assert has(server, CONTENT)
    assert "actions" not in batch(server, ["xet"], "sha_256").json["objects"][0]
    for number in ("x", "../..", "0" * 31, "0" * 33):
        address = f"/api/models/{TONE}/xet-write-token/main?upload={number}"
        assert server.call("GET", address).status == 400


def test_a_xorb_of_64_mib_packed_may_hold_more_when_it_is_unpacked(server: Server) -> None:
    # Half of each chunk is noise, half zeros: the chunk compresses to half of its size.
    data = [random.Random(number).randbytes(64 << 10) + bytes(64 << 10) for number in range(8)]
    upload = XetUpload.start(server)
    assert upload.xorb(b"".join(chunk(each, scheme=1) for each in data) * 80, XORB).status == 200
    assert 80 * len(data) * (128 << 10) > 64 << 20


def test_head_is_main_wherever_a_revision_is_named(server: Server, tmp_path: Path) -> None:
    files = files_of(tmp_path / "tone")
    commit = put(server, files)
    models = f"/api/models/{TONE}"
    assert server.call("GET", f"{models}/revision/HEAD").json["sha"] == commit
    assert server.call("GET", f"/{TONE}/resolve/HEAD/{CONFIG}").body == files[CONFIG]
    assert len(server.call("GET", f"{models}/tree/HEAD").json) == len(files)
    assert server.call("GET", f"{models}/commits/HEAD").json[0]["id"] == commit
    assert server.call("POST", f"{models}/tag/HEAD", {"tag": "first"}).status == 200
    assert server.call("GET", f"{models}/revision/first").json["sha"] == commit
    assert server.call("POST", f"{models}/branch/HEAD", {}).status == 409
    assert server.call("DELETE", f"{models}/branch/HEAD").status == 403


def test_raw_returns_a_small_file_or_the_pointer_of_a_large_one(server: Server, tmp_path: Path) -> None:
    files = files_of(tmp_path / "tone")
    put(server, files)
    raw = server.call("GET", f"/{TONE}/raw/main/{WEIGHTS}")
    sha256 = hashlib.sha256(files[WEIGHTS]).hexdigest()
    assert raw.body.decode().splitlines()[1:] == [f"oid sha256:{sha256}", f"size {len(files[WEIGHTS])}"]
    assert server.call("HEAD", f"/{TONE}/raw/main/{WEIGHTS}").headers["Content-Length"] == str(len(raw.body))
    assert server.call("GET", f"/{TONE}/raw/main/{CONFIG}").body == files[CONFIG]
    missing = server.call("GET", f"/{TONE}/raw/main/nothing")
    assert (missing.status, missing.headers["X-Error-Code"]) == (404, "EntryNotFound")
    stranger = server.token("stranger", "reader", ("elsewhere",))
    assert server.call("GET", f"/{TONE}/raw/main/{CONFIG}", token=stranger).status == 404


def test_commits_are_counted_even_if_only_one_is_requested(server: Server, tmp_path: Path) -> None:
    put(server, files_of(tmp_path / "tone"))
    one = server.call("GET", f"/api/models/{TONE}/commits/main?limit=1")
    every = server.call("GET", f"/api/models/{TONE}/commits/main").json
    assert (len(one.json), one.headers["X-Total-Count"]) == (1, str(len(every)))


def test_a_file_that_was_to_be_ignored_is_left_out_of_a_commit(server: Server, tmp_path: Path) -> None:
    files = files_of(tmp_path / "tone")
    extra = {
        "optimizer.pt": b"x",
        ".gitattributes": b"x",
        "checkpoint-5/README.md": b"x",
        "a b/.DS_Store": b"x",
    }
    answer = send(server, lines({**files, **extra}))
    assert answer.status == 200
    tree = server.call("GET", f"/api/models/{TONE}/tree/main?recursive=true").json
    assert {entry["path"] for entry in tree} == set(files)
    assert "optimizer.pt" in answer.headers["X-HF-Warning"]
    for path in ("NOTES.md", ".gitattributes", "a\\b"):
        head = server.call("GET", f"/api/models/{TONE}/revision/main").json["sha"]
        assert send(server, lines({path: b"x"})).status >= 400
        assert server.call("GET", f"/api/models/{TONE}/revision/main").json["sha"] == head


@pytest.mark.parametrize("path", ["model.safetensors", "adapter_model.bin"])
def test_a_commit_without_an_announcement_obeys_the_same_rules(server: Server, path: str) -> None:
    answer = send(server, lines({"README.md": b"# Tone", path: b"x"}))
    assert answer.status == 400
    assert path in answer.json["error"]
    assert len(server.call("GET", f"/api/models/{TONE}/commits/main").json) == 1


def test_a_large_file_that_is_to_be_ignored_is_announced_as_large(server: Server) -> None:
    files = [{"path": "optimizer.pt", "size": size, "sample": ""} for size in (1000, 5 << 20)]
    for file, mode in zip(files, ("regular", "lfs"), strict=True):
        body = {"files": [file, {"path": "README.md", "size": 3}]}
        answer, _ = server.call("POST", f"/api/models/{TONE}/preupload/main", body).json["files"]
        assert (answer["uploadMode"], answer["shouldIgnore"]) == (mode, True)
