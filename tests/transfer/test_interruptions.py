"""Transfers with connections that break and bytes that change in transit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.errors import DigestMismatch, Unavailable
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations import transfer
from adaptry.operations.transfer.retry import RetryPolicy
from adaptry.registry.files import Owner
from adaptry.registry.records import PushOptions, PushResult, UploadInfo
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.versions import LocalVersions
from adaptry.testing.flaky_registry import NO_WAIT, FlakyRegistry, RemoteUploads, TamperingRegistry


class UnreachableUploads(RemoteUploads):
    """Accepts no bytes."""

    def append(
        self, upload: UploadInfo, offset: int, chunks: Iterable[bytes], length: int | None = None
    ) -> UploadInfo:
        raise Unavailable("no route")


class ClosedUploads(RemoteUploads):
    """Opens no session."""

    def open(self, owner: Owner, digest: Digest | None, size: int, earlier: str | None = None) -> UploadInfo:
        raise Unavailable("no route")


class UnreachableVersions(LocalVersions):
    """Refuses every revision."""

    def put_with_files(
        self, name: AdapterName, manifest: bytes, options: PushOptions, contents: Sequence[bytes]
    ) -> PushResult:
        raise Unavailable("no route")


def test_an_interrupted_upload_continues_where_it_stopped(breaking: FlakyRegistry, large: Path) -> None:
    size = sum(path.stat().st_size for path in large.iterdir())
    breaking.cuts = 4

    pushed = transfer.push(breaking, open_dir(large), "acme/tone", retry=NO_WAIT)

    assert pushed.is_new
    assert breaking.cuts == 0
    assert breaking.sent == size


def test_small_files_are_sent_again_if_the_answer_was_lost(breaking: FlakyRegistry, large: Path) -> None:
    breaking.lost_answers = 2

    assert transfer.push(breaking, open_dir(large), "acme/tone", retry=NO_WAIT).is_new

    assert breaking.lost_answers == 0


def test_an_upload_gives_up_when_nothing_moves(breaking: FlakyRegistry, large: Path) -> None:
    dead = LocalRegistry(breaking.context)
    dead.uploads = UnreachableUploads(breaking.context)

    with pytest.raises(Unavailable, match="no route"):
        transfer.push(dead, open_dir(large), "acme/tone", retry=NO_WAIT)


@pytest.mark.parametrize("is_small", [True, False], ids=["in one request", "file by file"])
def test_a_push_gives_up_after_longest_failing_even_if_tries_are_left(
    registry: LocalRegistry, folder: Path, large: Path, is_small: bool
) -> None:
    dead = LocalRegistry(registry.context)
    dead.uploads = ClosedUploads(registry.context)
    dead.versions = UnreachableVersions(registry.context)
    timeout = RetryPolicy(tries=10**9, first_wait=0, longest_failing=0)

    with pytest.raises(Unavailable, match="no route"):
        transfer.push(dead, open_dir(folder if is_small else large), "acme/tone", retry=timeout)


def test_a_push_after_a_failed_one_sends_only_missing_large_files(
    breaking: FlakyRegistry, large: Path
) -> None:
    size = sum(path.stat().st_size for path in large.iterdir())
    breaking.cuts = 3  # the config, which is one chunk, the weights, and the weights again
    with pytest.raises(Unavailable):
        transfer.push(breaking, open_dir(large), "acme/tone", retry=RetryPolicy(tries=1))
    assert 0 < breaking.sent < size

    breaking.cuts = 0
    transfer.push(breaking, open_dir(large), "acme/tone")

    config = large / "adapter_config.json"  # so small that it is sent without asking
    assert breaking.sent == size + config.stat().st_size


def test_an_interrupted_pull_continues_where_it_stopped(
    breaking: FlakyRegistry, large: Path, tmp_path: Path
) -> None:
    transfer.push(breaking, open_dir(large), "acme/tone")
    breaking.cuts, breaking.sent = 4, 0

    transfer.pull(breaking, "acme/tone", tmp_path / "tone", retry=NO_WAIT)

    assert breaking.cuts == 0
    assert breaking.sent == sum(path.stat().st_size for path in large.iterdir())
    weights = "adapter_model.safetensors"
    assert (tmp_path / "tone" / weights).read_bytes() == (large / weights).read_bytes()


@pytest.mark.parametrize(
    "tamper",
    [
        lambda chunk: bytes([chunk[0] ^ 1]) + chunk[1:],
        lambda chunk: chunk + b"more",
        lambda chunk: chunk[:-1],
    ],
    ids=["a bit turned over", "bytes added", "bytes lost"],
)
def test_bytes_that_changed_on_the_way_are_never_published(
    tampering: TamperingRegistry, folder: Path, tmp_path: Path, tamper: Callable[[bytes], bytes]
) -> None:
    transfer.push(tampering, open_dir(folder), "acme/tone")
    tampering.tamper = tamper

    with pytest.raises(DigestMismatch):
        transfer.pull(tampering, "acme/tone", tmp_path / "tone", retry=NO_WAIT)

    assert list(tmp_path.glob("*tone*")) == []


def test_bytes_that_changed_on_the_way_are_not_admitted_by_a_copy(
    tampering: TamperingRegistry, elsewhere: LocalRegistry, folder: Path
) -> None:
    transfer.push(tampering, open_dir(folder), "acme/tone")
    tampering.tamper = lambda chunk: bytes([chunk[0] ^ 1]) + chunk[1:]

    with pytest.raises(DigestMismatch):
        transfer.copy(tampering, Ref.parse("acme/tone"), elsewhere, "acme/tone")

    assert elsewhere.adapters.list().items == ()
