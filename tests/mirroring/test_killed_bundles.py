"""A bundle whose creation was killed leaves nothing behind, whether or not another one is created there."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.failpoints import VARIABLE
from adaptry.core.files import atomic_file as atomic
from adaptry.core.files.atomic_file import atomic_file
from adaptry.operations.transfer import push
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_lora
from adaptry.testing.warm_python import run_warm


def bundle(tmp_path: Path, *, dies: bool = False) -> int:
    words = [
        sys.executable,
        "-m",
        "adaptry_cli",
        "--registry",
        str(tmp_path / "registry"),
        "bundle",
        "create",
    ]
    environ = {**os.environ, **({VARIABLE: "atomic_file.before_rename"} if dies else {})}
    return run_warm(
        [*words, "acme/tone", "-o", str(tmp_path / "out" / "tone.bundle")], env=environ, check=False
    ).returncode


def test_a_killed_bundle_create_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    registry = open_local(tmp_path / "registry")
    push(registry, open_dir(tiny_lora(tmp_path / "tone")), "acme/tone")
    registry.close()
    (tmp_path / "out").mkdir()
    assert bundle(tmp_path, dies=True) == -signal.SIGKILL
    if _is_nameless(tmp_path):
        assert list((tmp_path / "out").iterdir()) == []
    assert bundle(tmp_path) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tone.bundle"]


def _is_nameless(folder: Path) -> bool:
    descriptor = atomic._open_unnamed(folder)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


def test_the_next_writer_removes_files_of_dead_processes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_open_unnamed", lambda folder: None)
    target = tmp_path / "file"
    (tmp_path / ".file.0badcafe.part").write_bytes(b"of a killed process")
    (tmp_path / ".other.0badcafe.part").write_bytes(b"another file's")
    living = tmp_path / ".file.feedf00d.part"
    with living.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with atomic_file(target) as file:
            file.write(b"whole")
            assert len(list(tmp_path.glob(".file.*.part"))) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"file", ".other.0badcafe.part", living.name}
    assert target.read_bytes() == b"whole"


@pytest.mark.parametrize("has_names", [False, True])
def test_an_unfinished_file_does_not_replace_the_existing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_names: bool
) -> None:
    if has_names:
        monkeypatch.setattr(atomic, "_open_unnamed", lambda folder: None)
    target = tmp_path / "file"
    with atomic_file(target) as file:
        file.write(b"first")
    with pytest.raises(ZeroDivisionError), atomic_file(target) as file:
        file.write(b"half of the sec")
        raise ZeroDivisionError
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
