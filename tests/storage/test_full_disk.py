"""A full disk: stored data can be read, swept and served; every write fails with a clear error and leaves
nothing behind.

The disk is real: a small file system, filled to the last byte, if this user may mount one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import StorageFull
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import pull, push
from adaptry.registry.http import HttpRegistry
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_lora

pytestmark = pytest.mark.heavy

MOUNTS = {
    "tmpfs": ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs"],
    "ext4": ["mount", "-o", "loop"],
}


@pytest.fixture(params=MOUNTS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    words = [*MOUNTS[request.param]]
    if request.param == "ext4":
        image = tmp_path / "image"
        image.touch()
        os.truncate(image, 16 << 20)
        maker = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if maker is None:
            pytest.skip("needs mkfs.ext4 (apt-get install e2fsprogs)")
        subprocess.run([maker, "-q", "-m", "0", str(image)], check=True)
        words.append(str(image))
    if not shutil.which("mount") or subprocess.run([*words, str(place)], check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


class Full:
    """A registry on the full disk, with `acme/tone` and the files of a deleted adapter."""

    def __init__(self, disk: Path, scraps: Path) -> None:
        self.disk = disk
        self.home = disk / "registry"
        self.scraps = scraps
        self.tone = tiny_lora(scraps / "tone")
        self.new = tiny_lora(scraps / "new", seed=2)
        large = tiny_lora(scraps / "large", seed=3, hidden=4096, rank=16)
        registry = open_local(self.home)
        push(registry, open_dir(self.tone), "acme/tone")
        push(registry, open_dir(large), "acme/gone")
        registry.adapters.delete(AdapterName.parse("acme/gone"))
        registry.close()

    def fill(self) -> None:
        """Writes until the disk accepts no further byte, and not even a file of one block."""
        for number in range(1000):
            try:
                with (self.disk / f"filler-{number}").open("wb", buffering=0) as file:
                    while file.write(bytes(1 << 16 if not number else 512)):
                        pass
            except OSError:
                if (self.disk / f"filler-{number}").exists() and not (
                    self.disk / f"filler-{number}"
                ).stat().st_size:
                    return

    def free(self) -> None:
        for path in self.disk.glob("filler-*"):
            path.unlink()

    def adaptry(self, *words: str, code: int = 0, **environ: str) -> str:
        """Runs a command in a separate process; returns its output."""
        done = subprocess.run(
            [sys.executable, "-m", "adaptry_cli", "--registry", str(self.home), *words],
            capture_output=True,
            text=True,
            cwd=self.scraps,
            env={**os.environ, **environ},
            check=False,
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def files(self) -> set[str]:
        """All files of the registry, except those that SQLite creates and removes itself."""
        return {
            str(path.relative_to(self.home))
            for path in self.home.rglob("*")
            if not path.name.endswith(("-shm", "-wal"))
        }


@pytest.fixture
def full(disk: Path, tmp_path: Path) -> Full:
    made = Full(disk, tmp_path / "scraps")
    made.fill()
    assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize < 64 << 10
    return made


def test_existing_versions_are_readable_on_a_full_disk(full: Full) -> None:
    assert "acme/tone" in full.adaptry("ls")
    assert "acme/tone@1" in full.adaptry("show", "acme/tone")
    assert "acme/tone@1" in full.adaptry("search", "rank>=1")
    full.adaptry("pull", "acme/tone", "--to", "pulled")
    pulled = full.scraps / "pulled"
    assert {path.name: path.read_bytes() for path in pulled.iterdir()} == {
        path.name: path.read_bytes() for path in full.tone.iterdir()
    }


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs Linux's files in memory (/dev/shm)")
def test_temporary_files_may_be_on_the_full_disk_too(full: Full) -> None:
    assert "acme/tone" in full.adaptry("ls", TMPDIR=str(full.disk))


def test_writing_commands_report_the_full_disk_and_leave_nothing(full: Full) -> None:
    before = full.files()
    for words in (
        ("push", str(full.new), "acme/new"),
        ("promote", "acme/tone@1", "--to", "prod"),
        ("edit", "acme/tone", "--description", "no room for this"),
        ("pull", "acme/tone", "--to", str(full.disk / "pulled")),
    ):
        assert "no space left" in full.adaptry(*words, code=6)
    assert full.files() == before
    assert not (full.disk / "pulled").exists()


def test_a_sweep_frees_space_and_the_registry_recovers(full: Full) -> None:
    assert "would delete 2 files" in full.adaptry("gc", "--grace", "0", "--dry-run")
    assert "deleted 2 files" in full.adaptry("gc", "--grace", "0")
    assert shutil.disk_usage(full.disk).free > 2 << 20
    full.adaptry("push", str(full.new), "acme/new")
    assert "acme/new" in full.adaptry("ls")


def test_an_adapter_can_be_deleted_to_make_room(full: Full) -> None:
    full.adaptry("delete", "acme/tone", "--yes")
    assert "deleted 4 files" in full.adaptry("gc", "--grace", "0")


@pytest.mark.parametrize("first", [("delete", "acme/tone", "--yes"), ("gc",)])
def test_a_sweep_works_even_if_others_took_the_space_after_an_earlier_cleanup(
    full: Full, first: tuple[str, ...]
) -> None:
    full.adaptry(*first)
    for filler in full.disk.glob("filler-*"):
        filler.rename(full.disk / f"older-{filler.name}")
    full.fill()
    assert "deleted " in full.adaptry("gc", "--grace", "0")
    assert shutil.disk_usage(full.disk).free > 2 << 20


def test_with_free_space_everything_works_again(full: Full) -> None:
    full.adaptry("push", str(full.new), "acme/new", code=6)
    full.free()
    full.adaptry("push", str(full.new), "acme/new")
    full.adaptry("promote", "acme/new@1", "--to", "prod")


def test_a_registry_that_was_opened_on_the_full_disk_writes_once_there_is_space(full: Full) -> None:
    registry = open_local(full.home)
    with pytest.raises(StorageFull, match="no space left"):
        push(registry, open_dir(full.new), "acme/new")
    assert [str(one.name) for one in registry.adapters.list().items] == ["acme/tone"]
    full.free()
    push(registry, open_dir(full.new), "acme/new")
    assert [str(one.name) for one in registry.adapters.list().items] == ["acme/new", "acme/tone"]
    registry.close()


@contextmanager
def serve(data: Path) -> Iterator[str]:
    words = [sys.executable, "-m", "adaptry_cli", "serve", "--data", str(data), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate()


def test_a_server_with_a_full_disk_serves_reads_answers_507_and_recovers(disk: Path, tmp_path: Path) -> None:
    full = Full(disk, tmp_path / "scraps")
    with serve(full.home) as url:
        token = (full.home / "admin-token").read_text().strip()
        registry = HttpRegistry(url, token)
        assert urllib3.request("GET", f"{url}/readyz").status == 200
        full.fill()

        ready = urllib3.request("GET", f"{url}/readyz", retries=False)
        assert ready.status == 507
        assert [str(one.name) for one in registry.adapters.list().items] == ["acme/tone"]
        pull(registry, "acme/tone", tmp_path / "pulled")
        with pytest.raises(StorageFull, match="no space left"):
            push(registry, open_dir(full.new), "acme/new")
        body = {"digest": "sha256:" + "0" * 64, "size": 1000}
        opened = urllib3.request(
            "POST",
            f"{url}/api/v1/adapters/acme/new/uploads",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
            retries=False,
        )
        assert opened.status == 507
        assert "acme/tone" in full.adaptry("ls")
        full.adaptry("pull", "acme/tone", "--to", "pulled-beside")

        assert "deleted 2 files" in full.adaptry("gc", "--grace", "0")
        push(registry, open_dir(full.new), "acme/new")
        assert urllib3.request("GET", f"{url}/readyz", retries=False).status == 200
