"""A server with its files in a bucket of a real S3 server, which redirects readers to the bucket."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import urllib3

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.errors import CorruptData, DigestMismatch, Unavailable
from adaptry.core.lifecycle import State
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import pull, push
from adaptry.operations.version_state import change_state
from adaptry.registry.records import StateChange
from adaptry.testing.samples import tiny_lora
from adaptry_api.redirects import MIN_REDIRECT_SIZE
from adaptry_api.testing import Server, assert_problem, until

NAME = AdapterName.parse("acme/tone")
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def large(tmp_path: Path) -> Adapter:
    folder = tiny_lora(tmp_path / "large", hidden=512, layers=8, rank=32)
    assert (folder / WEIGHTS).stat().st_size > 2 * MIN_REDIRECT_SIZE
    return open_dir(folder)


@pytest.fixture
def weights(large: Adapter) -> bytes:
    return b"".join(large.content.chunks(WEIGHTS))


@pytest.fixture
def presigning(start: Callable[..., Server], s3_place: str) -> Server:
    return start(blobs=s3_place, presign_downloads=True)


@pytest.fixture
def url(presigning: Server, large: Adapter) -> str:
    digest = push(presigning.registry(), large, NAME).version.digest
    return f"/api/v1/adapters/{NAME}/revisions/{digest}/files/"


def test_pushed_files_are_pulled_from_the_bucket_and_none_stays_in_the_folder(
    start: Callable[..., Server], s3_place: str, large: Adapter, weights: bytes, tmp_path: Path
) -> None:
    server = start(blobs=s3_place, blob_cache=0)
    push(server.registry(), large, NAME)
    pull(server.registry(), "acme/tone", tmp_path / "pulled")
    assert (tmp_path / "pulled" / WEIGHTS).read_bytes() == weights
    assert not [
        path for path in server.data.rglob("*") if path.is_file() and path.stat().st_size == len(weights)
    ]


def test_a_server_finds_its_bucket_without_the_option(
    start: Callable[..., Server], s3_place: str, large: Adapter, weights: bytes, tmp_path: Path
) -> None:
    push(start(blobs=s3_place).registry(), large, NAME)
    pull(start().registry(), "acme/tone", tmp_path / "pulled")
    assert (tmp_path / "pulled" / WEIGHTS).read_bytes() == weights


def test_a_large_file_is_read_from_the_bucket_without_a_token(
    presigning: Server, url: str, weights: bytes
) -> None:
    answer = presigning.call("GET", url + WEIGHTS)
    assert (answer.status, answer.body) == (302, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    assert urllib3.request("GET", answer.headers["Location"]).data == weights


def test_small_files_and_head_requests_are_answered_by_the_server(presigning: Server, url: str) -> None:
    assert presigning.call("GET", url + "adapter_config.json").status == 200
    entry = (
        presigning.registry()
        .commits.tree(NAME, presigning.registry().commits.get(NAME, "main").digest)
        .file(WEIGHTS)
    )
    assert entry
    kept = presigning.call("GET", url + WEIGHTS, headers={"If-None-Match": f'"{entry.sha256.hex}"'})
    assert kept.status == 304
    too_far = presigning.call("GET", url + WEIGHTS, headers={"Range": "bytes=999999999-"})
    assert too_far.status == 416


def test_a_caller_who_cannot_read_a_file_gets_no_bucket_address(presigning: Server, url: str) -> None:
    stranger = presigning.token("eve", "reader", ("evil",))
    assert_problem(presigning.call("GET", url + WEIGHTS, token=stranger), 404, "not_found")
    assert_problem(presigning.call("GET", url + WEIGHTS, token=None), 401, "unauthenticated")


@pytest.mark.parametrize("state", ["quarantined", "revoked"])
def test_readers_get_no_bucket_address_for_withdrawn_files(
    presigning: Server, url: str, state: State
) -> None:
    reader = presigning.token("ron", "reader", ("acme",))
    assert presigning.call("GET", url + WEIGHTS, token=reader).status == 302
    change = StateChange(state=state, reason="leaks addresses")
    change_state(presigning.registry(), Ref.parse("acme/tone@1"), change)
    for path in (url + WEIGHTS, f"/{NAME}/resolve/v1/{WEIGHTS}"):
        refused = presigning.call("GET", path, token=reader)
        assert (refused.status, "Location" in refused.headers) == (403, False)


def test_the_client_follows_the_redirect_and_resumes(
    presigning: Server, url: str, weights: bytes, tmp_path: Path
) -> None:
    registry = presigning.registry()
    pull(registry, "acme/tone", tmp_path / "pulled")
    assert (tmp_path / "pulled" / WEIGHTS).read_bytes() == weights
    digest = registry.commits.get(NAME, "main").digest
    assert b"".join(registry.files.read(NAME, digest, WEIGHTS, 1_000_001)) == weights[1_000_001:]
    assert list(registry.files.read(NAME, digest, WEIGHTS, len(weights))) == []


def test_a_pull_detects_changed_bytes_in_the_bucket(
    presigning: Server, url: str, large: Adapter, weights: bytes, tmp_path: Path
) -> None:
    from adaptry.storage.blobs.factory import open_blobs
    from adaptry.storage.blobs.tiered import TieredBlobs

    blobs = open_blobs(presigning.data)
    assert isinstance(blobs, TieredBlobs)
    entry = (
        presigning.registry()
        .commits.tree(NAME, presigning.registry().commits.get(NAME, "main").digest)
        .file(WEIGHTS)
    )
    assert entry
    blobs.store.objects.put(  # type: ignore[attr-defined]  # the bucket's owner can do anything
        f"sha256/{entry.sha256.hex[:2]}/{entry.sha256.hex}", weights[:-1] + bytes([weights[-1] ^ 1])
    )
    with pytest.raises((DigestMismatch, CorruptData, Unavailable)):
        pull(presigning.registry(), "acme/tone", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


@pytest.mark.usefixtures("stores_downloads_soon")
def test_clients_of_the_hub_are_sent_to_the_bucket(
    presigning: Server, url: str, weights: bytes, tmp_path: Path
) -> None:
    head = presigning.call("HEAD", f"/{NAME}/resolve/main/{WEIGHTS}")
    assert (head.status, head.headers["X-Linked-Size"]) == (200, str(len(weights)))
    code = f"from huggingface_hub import hf_hub_download as get; print(get('{NAME}', '{WEIGHTS}'))"
    environment = {
        **os.environ,
        "HF_ENDPOINT": presigning.url,
        "HF_TOKEN": presigning.admin,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert Path(run.stdout.strip()).read_bytes() == weights
    assert until(lambda: presigning.registry().adapters.get(NAME).downloads, bool) == 1
