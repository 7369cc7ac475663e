"""Downloads over HTTP: whole files, ranges, caching, and detection of changed bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter
from adaptry.core.errors import DigestMismatch, Invalid
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import pull, push
from adaptry_api.ranges import HttpRange, parse_range
from adaptry_api.testing import Server, assert_problem

NAME = AdapterName.parse("acme/tone")
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def url(server: Server, tone: Adapter) -> str:
    digest = push(server.registry(), tone, NAME).version.digest
    return f"/api/v1/adapters/{NAME}/revisions/{digest}/files/{WEIGHTS}"


@pytest.fixture
def weights(tone: Adapter) -> bytes:
    return b"".join(tone.content.chunks(WEIGHTS))


def test_a_file_is_sent_whole_as_a_cacheable_attachment(server: Server, url: str, weights: bytes) -> None:
    answer = server.call("GET", url)
    assert (answer.status, answer.body) == (200, weights)
    assert answer.headers["Content-Length"] == str(len(weights))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{WEIGHTS}"'
    assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    kept = server.call("GET", url, headers={"If-None-Match": answer.headers["ETag"]})
    assert (kept.status, kept.body) == (304, b"")


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [("0-0", 0, 1), ("10-19", 10, 20), ("100-", 100, None), ("-7", -7, None), ("5-99999999", 5, None)],
)
def test_one_range_is_answered(
    server: Server, url: str, weights: bytes, asked: str, first: int, end: int | None
) -> None:
    answer = server.call("GET", url, headers={"Range": f"bytes={asked}"})
    assert (answer.status, answer.body) == (206, weights[first:end])
    first %= len(weights)
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(answer.body) - 1}/{len(weights)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,3-4", "bytes=9-3", "lines=1-2", "bytes=", "bytes=a-b"])
def test_a_header_with_other_than_one_range_gets_the_whole_file(
    server: Server, url: str, weights: bytes, asked: str
) -> None:
    answer = server.call("GET", url, headers={"Range": asked})
    assert (answer.status, answer.body) == (200, weights)


def test_a_range_past_the_end_gets_the_files_size(server: Server, url: str, weights: bytes) -> None:
    answer = server.call("GET", url, headers={"Range": f"bytes={len(weights)}-"})
    assert_problem(answer, 416, "invalid")
    assert answer.headers["Content-Range"] == f"bytes */{len(weights)}"


def test_a_range_of_another_file_than_the_one_seen_is_not_mixed_into_it(
    server: Server, url: str, weights: bytes
) -> None:
    answer = server.call("GET", url, headers={"Range": "bytes=5-9", "If-Range": '"another"'})
    assert (answer.status, answer.body) == (200, weights)


def test_an_empty_file_has_no_ranges() -> None:
    assert parse_range(None, 0) == HttpRange(0, 0, 0)
    assert parse_range("bytes=0-", 0) is None


def test_the_client_reads_from_the_middle_to_the_end_and_nothing_past_it(
    server: Server, url: str, weights: bytes
) -> None:
    registry = server.registry()
    digest = registry.versions.list(NAME).items[0].digest
    for start in (0, 1, len(weights) - 1, len(weights)):
        assert b"".join(registry.files.read(NAME, digest, WEIGHTS, start)) == weights[start:]
    for start in (-1, len(weights) + 1):
        with pytest.raises(Invalid, match="cannot be read from"):
            registry.files.read(NAME, digest, WEIGHTS, start)


def test_a_flipped_bit_in_the_store_is_detected_and_nothing_is_written(
    server: Server, url: str, weights: bytes, tmp_path: Path
) -> None:
    blob = next(path for path in server.data.glob("blobs/sha256/*/*") if path.read_bytes() == weights)
    damaged = bytearray(weights)
    damaged[len(damaged) // 2] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(damaged)
    with pytest.raises(DigestMismatch):
        pull(server.registry(), "acme/tone", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_a_pull_over_http_gives_the_pushed_files(
    server: Server, url: str, tone: Adapter, tmp_path: Path
) -> None:
    version = pull(server.registry(), "acme/tone@1", tmp_path / "pulled")
    assert (tmp_path / "pulled" / WEIGHTS).read_bytes() == b"".join(tone.content.chunks(WEIGHTS))
    assert server.registry().versions.list(NAME).items[0].digest == version.digest
    assert server.registry().adapters.get(NAME).downloads == 1
