"""The bytes of a manifest are its identity: one canonical form, and no content that is not allowed."""

from __future__ import annotations

import json

import pytest

from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidManifest, InvalidPath, ProtocolMismatch
from adaptry.core.manifest import BaseClaim, Manifest
from adaptry.core.tree_paths import check_path

FILES = {"b.txt": (3, Digest.of(b"abc")), "a.txt": (0, Digest.of(b""))}


def test_equal_contents_have_one_digest() -> None:
    there = Manifest.of(FILES, base=BaseClaim(name="org/model"), provenance={"run": "7"})
    back = Manifest.of(
        dict(reversed(FILES.items())), base=BaseClaim(name="org/model"), provenance={"run": "7"}
    )
    assert there.to_bytes() == back.to_bytes()
    assert Manifest.parse(there.to_bytes()) == there
    assert there.digest == Digest.of(there.to_bytes())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace(b":", b": ", 1),
        lambda text: text.replace(b'"schema":1', b'"schema":1,"when":"today"'),
        lambda text: text.replace(b'"schema":1', b'"schema":1,"schema":1'),
        lambda text: text.replace(b'"schema":1', b'"parents":[],"schema":1'),
        lambda text: text.replace(b'"size":3', b'"size":-3'),
        lambda text: text.replace(b"a.txt", b"b.txt"),
        lambda text: text[:-1],
        lambda text: text + b" ",
    ],
)
def test_bytes_that_are_not_canonical_are_refused(spoil) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidManifest):
        Manifest.parse(spoil(Manifest.of(FILES).to_bytes()))


def test_the_error_for_a_later_schema_names_the_side_to_upgrade() -> None:
    later = json.dumps({"schema": 2, "files": []}).encode()
    with pytest.raises(ProtocolMismatch, match="upgrade adaptry"):
        Manifest.parse(later)


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/passwd", "C:\\x", "\\\\host\\share", "a\\..\\b", "%2e%2e%2fx", "a%00",
     "\uff0e\uff0e", "a\n", "a\u202eb", "con", "nul.txt", "x.", "", ".", "..", "a;b", "a#b", "a?b", ".hidden",
     "a//b", "/".join("abcdefghi"), "x" * 129, "LPT1"],
)  # fmt: skip
def test_a_path_unsafe_on_any_system_is_refused(path: str) -> None:
    with pytest.raises(InvalidPath):
        check_path(path)


def test_two_files_that_differ_by_case_are_refused() -> None:
    with pytest.raises(InvalidManifest, match="case"):
        Manifest.of({"README.md": (1, Digest.of(b"x")), "readme.md": (1, Digest.of(b"y"))})


def test_a_checkpoint_may_be_in_nested_folders() -> None:
    assert check_path("runs/one/checkpoint-500/adapter/adapter_config.json")
    assert check_path("/".join("abcdefgh"))
    assert check_path("a" * 120 + "/" + "b" * 120 + "/README.md")


def test_a_branch_of_many_checkpoints_has_a_manifest_that_is_read_again() -> None:
    files = {
        f"checkpoint-{number:05}/adapter_config.json": (3_000_000, Digest.of(b"x")) for number in range(8192)
    }
    manifest = Manifest.of(files)
    assert Manifest.parse(manifest.to_bytes()) == manifest
    with pytest.raises(InvalidManifest, match="8193 files"):
        Manifest.of({**files, "README.md": (1, Digest.of(b"x"))})
