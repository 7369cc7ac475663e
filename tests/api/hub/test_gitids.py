"""Git object ids. The expected ids were computed by git itself."""

from __future__ import annotations

import pytest

from adaptry.core.digest import Digest
from adaptry_api.hub.gitids import blob_id, blob_id_of, is_large, pointer, tree_ids

FILES = {"a-b": b"4\n", "a.b/y": b"2\n", "a/x": b"1\n", "ab": b"3\n"}


def test_a_files_id_is_that_of_git_hash_object() -> None:
    assert blob_id(b"1\n") == "d00491fd7e5bb6fa28c517a0bb32b8b506539d4d"
    assert blob_id_of([b"1", b"\n"], 2) == blob_id(b"1\n")
    assert blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_a_folders_id_is_that_of_git_write_tree() -> None:
    ids = tree_ids({path: blob_id(data) for path, data in FILES.items()})
    assert ids == {
        "": "003d3753d1aca04c9cd4aeaebdcfd457b12992c6",
        "a": "1808145eca0a3bc7bbbd9ec1645e022e830c05eb",
        "a.b": "0080b07f13d93022c30b537a34004851f9afd06e",
    }
    assert tree_ids({}) == {"": "4b825dc642cb6eb9a060e54bf8d69288fbee4904"}


def test_a_pointer_is_as_the_git_lfs_specification_shows_it() -> None:
    sha256 = Digest("4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393")
    assert pointer(sha256, 12345) == (
        b"version https://git-lfs.github.com/spec/v1\n"
        b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
        b"size 12345\n"
    )


@pytest.mark.parametrize(
    ("path", "size", "large"),
    [
        ("adapter_model.safetensors", 10, True),
        ("adapter_model.safetensors", 0, False),
        ("README.md", 10, False),
        ("tokenizer.json", 2 << 20, True),
        ("tokenizer.json", 1 << 20, False),
        ("tokenizer.model", 10, True),
    ],
)
def test_name_and_size_determine_whether_a_file_is_large(path: str, size: int, large: bool) -> None:
    assert is_large(path, size) is large
