"""Properties of a local blob store beyond the contract: file permissions, behaviour on a full disk, and
costs.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from adaptry.core.digest import Digest
from adaptry.core.errors import StorageFull
from adaptry.storage.blobs.local import LocalBlobs

DATA = b"some bytes"


def test_only_the_owner_can_read_what_is_stored(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    blobs.put(Digest.of(DATA), [DATA])
    modes = {
        path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in [blobs.folder, *blobs.folder.rglob("*")]
    }
    assert modes == {True: 0o700, False: 0o600}


def test_another_process_continues_a_staging_and_verifies_all_of_it(tmp_path: Path) -> None:
    first, second = LocalBlobs(tmp_path), LocalBlobs(tmp_path)
    key = first.new_key()
    with first.staging(key) as staged:
        staged.append(0, [DATA[:4]])
    with second.staging(key) as staged:
        staged.append(4, [DATA[4:]])
        staged.publish(Digest.of(DATA))
    assert first.read(Digest.of(DATA), 0, 100) == DATA


def test_a_program_that_starts_in_the_meantime_does_not_keep_a_staging_locked(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    key = blobs.new_key()
    with blobs.staging(key) as staged:
        staged.append(0, [DATA])
        assert staged.descriptor is not None
        # Until it begins, every program that another thread starts inherits the descriptor; this one keeps
        # it.
        program = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[staged.descriptor])
    with program:
        assert not blobs.is_held(key)
        with blobs.staging(key) as staged:
            staged.publish(Digest.of(DATA))
    assert blobs.has(Digest.of(DATA))


def test_a_staging_that_grew_elsewhere_is_not_trusted_to_an_old_hash(tmp_path: Path) -> None:
    first, second = LocalBlobs(tmp_path), LocalBlobs(tmp_path)
    key = first.new_key()
    for blobs, offset, piece in ((first, 0, DATA[:2]), (second, 2, DATA[2:4]), (first, 4, DATA[4:])):
        with blobs.staging(key) as staged:
            staged.append(offset, [piece])
    with first.staging(key) as staged:
        staged.publish(Digest.of(DATA))
    assert first.has(Digest.of(DATA))


def test_a_corrupt_blob_is_healed_by_sending_it_again(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    digest = Digest.of(DATA)
    blobs.put(digest, [DATA])
    blobs.path_of(digest).write_bytes(b"rotten")
    with blobs.staging(blobs.new_key()) as staged:
        staged.append(0, [DATA])
        staged.publish(digest)
    assert blobs.read(digest, 0, 100) == DATA


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("a small disk needs the right to mount a tmpfs")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_a_full_disk_is_reported_and_existing_files_stay(small_disk: Path) -> None:
    blobs = LocalBlobs(small_disk)
    blobs.put(Digest.of(DATA), [DATA])
    large = [os.urandom(1 << 20)] * 6
    with pytest.raises(StorageFull, match="no space left"):
        blobs.put(Digest.of_chunks(large), large)
    assert list(blobs.stagings()) == []
    assert blobs.read(Digest.of(DATA), 0, 100) == DATA
    blobs.put(Digest.of(large[0]), large[:1])


def test_a_full_disk_discards_only_the_last_piece_of_a_session(small_disk: Path) -> None:
    blobs = LocalBlobs(small_disk)
    key = blobs.new_key()
    large = [os.urandom(1 << 20)] * 6
    with blobs.staging(key) as staged:
        staged.append(0, [DATA])
        with pytest.raises(StorageFull):
            staged.append(len(DATA), large)
        staged.append(len(DATA), [DATA])
        staged.publish(Digest.of(DATA + DATA))
    assert blobs.size(Digest.of(DATA + DATA)) == 2 * len(DATA)


def test_a_file_larger_than_the_free_space_is_refused_before_it_is_sent(small_disk: Path) -> None:
    with pytest.raises(StorageFull):
        LocalBlobs(small_disk).require_room(5 << 20)


def test_a_large_file_is_replaced_even_if_no_thread_can_free_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, data = LocalBlobs(tmp_path / "blobs"), bytes(9 << 20)
    digest = Digest.of(data)
    blobs.put(digest, [data])
    staged = tmp_path / "staged"
    staged.write_bytes(data)

    def no_thread(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", no_thread)
    blobs.place(staged, digest)
    assert blobs.size(digest) == len(data)
