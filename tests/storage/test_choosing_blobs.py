"""Where the files of a registry's folder are: chosen once, found again by everyone."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.blobs.choosing import open_blobs
from adaptry.blobs.local import LocalBlobs
from adaptry.blobs.tiered import TieredBlobs
from adaptry.digest import Digest
from adaptry.errors import Conflict, Unavailable

HELLO = Digest.of(b"hello")


def test_files_are_in_the_folder_unless_someone_says_otherwise(tmp_path: Path) -> None:
    assert isinstance(open_blobs(tmp_path), LocalBlobs)


def test_a_bucket_once_chosen_is_found_by_who_does_not_name_it(s3_place: str, tmp_path: Path) -> None:
    open_blobs(tmp_path, s3_place).put(HELLO, [b"hello"])
    again = open_blobs(tmp_path)
    assert isinstance(again, TieredBlobs)
    assert again.path_of(HELLO).read_bytes() == b"hello"


def test_another_bucket_than_the_registrys_is_refused(s3_place: str, tmp_path: Path) -> None:
    open_blobs(tmp_path, s3_place)
    with pytest.raises(Conflict, match="keeps its files in s3://"):
        open_blobs(tmp_path, s3_place.replace("?", "-other?"))
    assert open_blobs(tmp_path, s3_place.replace("region=us-east-1", "region=eu-west-1"))


def test_a_registry_with_files_in_its_folder_does_not_lose_sight_of_them(
    s3_place: str, tmp_path: Path
) -> None:
    open_blobs(tmp_path).put(HELLO, [b"hello"])
    with pytest.raises(Conflict, match="copy that folder's sha256/ to s3://"):
        open_blobs(tmp_path, s3_place)
    assert open_blobs(tmp_path).has(HELLO)


def test_a_bucket_that_cannot_be_used_is_not_chosen(s3_place: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        open_blobs(tmp_path, s3_place.replace("adaptry-tests", "no-such-bucket"))
    assert isinstance(open_blobs(tmp_path), LocalBlobs)
