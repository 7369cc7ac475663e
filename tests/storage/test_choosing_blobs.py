"""The location of a registry's blobs: chosen once, and found by every later process."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, Unavailable
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import pull, push
from adaptry.registry.records import AdapterEdit
from adaptry.storage import ownership
from adaptry.storage.blobs.factory import open_blobs
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.blobs.tiered import TieredBlobs
from adaptry.storage.connect import open_local
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora

HELLO = Digest.of(b"hello")


def test_files_are_in_the_folder_by_default(tmp_path: Path) -> None:
    assert isinstance(open_blobs(tmp_path), LocalBlobs)


def test_a_registry_finds_its_bucket_without_the_option(s3_place: str, tmp_path: Path) -> None:
    open_blobs(tmp_path, s3_place).put(HELLO, [b"hello"])
    again = open_blobs(tmp_path)
    assert isinstance(again, TieredBlobs)
    assert again.path_of(HELLO).read_bytes() == b"hello"


def test_another_bucket_than_the_registrys_is_refused(s3_place: str, tmp_path: Path) -> None:
    open_blobs(tmp_path, s3_place)
    with pytest.raises(Conflict, match="keeps its files in s3://"):
        open_blobs(tmp_path, s3_place.replace("?", "-other?"))
    assert open_blobs(tmp_path, s3_place.replace("region=us-east-1", "region=eu-west-1"))


def test_a_registry_with_files_in_its_folder_refuses_a_bucket(s3_place: str, tmp_path: Path) -> None:
    open_blobs(tmp_path).put(HELLO, [b"hello"])
    with pytest.raises(Conflict, match="copy that folder's sha256/ to s3://"):
        open_blobs(tmp_path, s3_place)
    assert open_blobs(tmp_path).has(HELLO)


def test_a_bucket_that_cannot_be_used_is_not_chosen(s3_place: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        open_blobs(tmp_path, s3_place.replace("adaptry-tests", "no-such-bucket"))
    assert isinstance(open_blobs(tmp_path), LocalBlobs)


def test_a_new_registry_refuses_a_bucket_with_files_of_another(tmp_path: Path, s3_place: str) -> None:
    """The new registry's sweeps would delete these files."""
    first = open_local(tmp_path / "first", blobs=s3_place)
    push(first, open_dir(tiny_lora(tmp_path / "lora")), "acme/tone")
    with pytest.raises(Conflict, match="they belong to another registry"):
        open_local(tmp_path / "second", blobs=s3_place)
    pull(first, "acme/tone", tmp_path / "pulled")
    first.close()
    open_local(tmp_path / "second", blobs=s3_place.replace("?", "-other?")).close()


def test_a_first_push_under_way_does_not_keep_a_second_process_out(
    tmp_path: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes come before its rows, which are written while the second process waits."""
    first = open_local(tmp_path / "registry", blobs=s3_place)
    first.blobs.put(HELLO, [b"hello"])
    waits = []

    def write_rows(seconds: float) -> None:
        waits.append(seconds)
        first.adapters.create(AdapterName.parse("acme/tone"), AdapterEdit())

    monkeypatch.setattr(ownership, "time", SimpleNamespace(monotonic=time.monotonic, sleep=write_rows))
    open_local(tmp_path / "registry").close()
    first.close()
    assert len(waits) == 1


def test_a_registry_whose_first_push_was_interrupted_keeps_its_bucket(tmp_path: Path, s3_place: str) -> None:
    """No version was ever made, but the registry has a record of the begun upload."""
    adapter = open_dir(tiny_lora(tmp_path / "lora"))
    (path, size), *_ = adapter.content.sizes.items()
    data = b"".join(adapter.content.chunks(path))
    name, digest = AdapterName.parse("acme/tone"), Digest.of(data)
    registry = open_local(tmp_path / "first", blobs=s3_place)
    session = registry.uploads.append(registry.uploads.open(name, digest, size), 0, [data])
    registry.uploads.finish(session)
    registry.close()
    registry = open_local(tmp_path / "first")
    assert registry.files.has(name, digest)
    registry.close()


def test_an_empty_registry_refuses_a_bucket_that_another_has_filled(tmp_path: Path, s3_place: str) -> None:
    open_local(tmp_path / "second", blobs=s3_place).close()
    first = open_local(tmp_path / "first", blobs=s3_place)
    push(first, open_dir(tiny_lora(tmp_path / "lora")), "acme/tone")
    first.close()
    with pytest.raises(Conflict, match="they belong to another registry"):
        open_local(tmp_path / "second")


def test_a_server_that_was_given_an_empty_database_with_its_bucket_can_be_given_the_right_one(
    tmp_path: Path, s3_place: str, postgres: PostgresServer
) -> None:
    right, wrong = postgres.database(), postgres.database()
    first = open_local(tmp_path / "first", catalog=right, blobs=s3_place)
    push(first, open_dir(tiny_lora(tmp_path / "lora")), "acme/tone")
    with pytest.raises(Conflict, match="that registry's catalog"):
        open_local(tmp_path / "second", catalog=wrong, blobs=s3_place)
    second = open_local(tmp_path / "second", catalog=right, blobs=s3_place)
    pull(second, "acme/tone", tmp_path / "pulled")
    second.close()
    first.close()
