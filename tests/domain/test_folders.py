"""Which files of a folder are read as an adapter, and which symbolic links are followed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Invalid
from adaptry.testing.samples import tiny_lora

WEIGHTS = "adapter_model.safetensors"
REVISION = "0123456789abcdef0123456789abcdef01234567"

if not hasattr(os, "symlink"):
    pytest.skip("this system has no links", allow_module_level=True)


def moved(folder: Path, blobs: Path) -> None:
    """Moves every file of `folder` to `blobs`, and puts a link in its place."""
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        blob = path.rename(blobs / f"{number:064x}")
        path.symlink_to(os.path.relpath(blob, folder))


@pytest.mark.parametrize("inner", ["", "adapters/tone"], ids=["snapshot", "folder in a snapshot"])
def test_a_snapshot_of_the_hugging_face_cache_is_an_adapter_like_any_other(
    tmp_path: Path, inner: str
) -> None:
    plain = open_dir(tiny_lora(tmp_path / "plain"))
    repository = tmp_path / "models--acme--tone"
    folder = tiny_lora(repository / "snapshots" / REVISION / inner)
    moved(folder, repository / "blobs")
    cached = open_dir(folder)
    assert cached.weights_digest() == plain.weights_digest()
    assert cached.content.sizes == plain.content.sizes


@pytest.mark.parametrize(
    "inside", ["", f"models--acme--tone/snapshots/{REVISION}"], ids=["plain", "snapshot"]
)
def test_a_link_to_elsewhere_is_refused_with_the_line_that_copies(tmp_path: Path, inside: str) -> None:
    folder = tiny_lora(tmp_path / "my adapter" / inside)
    moved(folder, tmp_path / "secrets")
    with pytest.raises(Invalid, match=r"is a link to a file elsewhere.*cp -rL") as refused:
        open_dir(folder)
    line = "cp -rL" + refused.value.message.partition("cp -rL")[2]
    subprocess.run(line, shell=True, check=True, cwd=tmp_path)
    [copy] = tmp_path.glob("*-copy")
    assert open_dir(copy).spec.modules


def test_circular_links_are_refused(tmp_path: Path) -> None:
    folder = tiny_lora(tmp_path)
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(WEIGHTS)
    with pytest.raises(Invalid, match="is a link"):
        open_dir(folder)


def test_a_folder_instead_of_a_file_is_refused(tmp_path: Path) -> None:
    folder = tiny_lora(tmp_path)
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    with pytest.raises(Invalid, match=rf"{WEIGHTS} is a folder, where a file is expected"):
        open_dir(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_instead_of_a_file_is_refused_without_blocking(tmp_path: Path) -> None:
    folder = tiny_lora(tmp_path)
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    with pytest.raises(Invalid, match="a device or a pipe"):
        open_dir(folder)
