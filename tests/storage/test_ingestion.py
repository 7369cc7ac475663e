"""Files stored by a local registry in one pass over their bytes equal those that are uploaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.adapters.content import MemoryContent
from adaptry.core.errors import CheckFailed, Invalid
from adaptry.core.progress import no_progress
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.operations.transfer.files import hash_files
from adaptry.registry.versions import MAX_SENT
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.blobs.tiered import TieredBlobs
from adaptry.storage.catalog import files, inspections
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.connect import open_in_memory, open_local
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.file_by_file import push_file_by_file, push_in_one_pass
from adaptry.testing.samples import tiny_lora

TONE = AdapterName.parse("acme/tone")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    with open_local(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def large(tmp_path: Path) -> Adapter:
    """An adapter that is not sent in one request."""
    adapter = open_dir(tiny_lora(tmp_path / "large", layers=4, rank=64, hidden=4096))
    assert sum(adapter.content.sizes.values()) > MAX_SENT
    return adapter


def test_a_large_push_stores_the_version_that_a_push_of_its_files_does(
    registry: LocalRegistry, large: Adapter
) -> None:
    pushed = push(registry, large, TONE).version

    with open_in_memory() as other:
        sent = push_file_by_file(other, large, TONE).version
    assert (pushed.digest, pushed.weights, pushed.parameters) == (sent.digest, sent.weights, sent.parameters)
    assert registry.uploads.list().items == ()
    assert list(registry.blobs.stagings()) == []
    assert verify(registry.catalog, registry.blobs) == ()


def test_derived_values_equal_those_of_files_that_are_sent(registry: LocalRegistry, large: Adapter) -> None:
    stored = registry.uploads.ingest(TONE, large.content)

    hashed = {path: digest for path, (_, digest) in hash_files(large.content, no_progress).items()}
    assert stored == hashed
    with registry.catalog.read() as tx:
        found = inspections.find(tx, hashed.values())
        weights = files.find_weights_digest(tx, hashed["adapter_model.safetensors"])
    assert weights == large.weights_digest()
    with open_in_memory() as other:
        sent = push_file_by_file(other, large, TONE).version
        expected = other.versions.inspect_tensors(Ref.of_revision(TONE, sent.digest)).items
    statistics = found[hashed["adapter_model.safetensors"]].tensors
    assert [(one.tensor, one.norm, one.nan) for one in expected] == [
        (name, tensor.norm, tensor.nan) for name, tensor in statistics.items()
    ]


def test_files_that_the_adapter_has_are_not_stored_again(registry: LocalRegistry, large: Adapter) -> None:
    first = push(registry, large, TONE)

    assert registry.uploads.ingest(TONE, large.content) is None
    again = push(registry, large, TONE)
    assert (again.is_new, again.version.digest) == (False, first.version.digest)


def test_another_adapter_may_have_the_same_files(registry: LocalRegistry, large: Adapter) -> None:
    push(registry, large, TONE)

    pushed = push_in_one_pass(registry, large, AdapterName.parse("beta/tone"))

    assert pushed.version.number == 1
    assert verify(registry.catalog, registry.blobs) == ()


def test_weights_with_nan_are_refused(registry: LocalRegistry, tmp_path: Path) -> None:
    folder = tiny_lora(tmp_path / "bad", layers=4, rank=64, hidden=4096)
    file = folder / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-4:] = b"\xff\xff\xff\xff"
    file.write_bytes(data)

    with pytest.raises(CheckFailed, match="NaN"):
        push(registry, open_dir(folder), TONE)


def test_files_that_are_not_safetensors_have_a_digest_only(registry: LocalRegistry) -> None:
    content = MemoryContent({"README.md": b"# Tone", "adapter_model.safetensors": b"not tensors"})

    stored = registry.uploads.ingest(TONE, content)

    assert stored == {path: digest for path, (_, digest) in hash_files(content, no_progress).items()}


class Shrinking(MemoryContent):
    """A file that becomes shorter while it is read."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        return super().read(path, offset, length) if offset == 0 else b""


def test_nothing_is_kept_of_a_file_that_changes_while_it_is_read(registry: LocalRegistry) -> None:
    content = Shrinking({"README.md": bytes(3 << 20)})

    with pytest.raises(Invalid, match="shorter"):
        registry.uploads.ingest(TONE, content)

    assert list(registry.blobs.stagings()) == []
    assert list(registry.blobs.digests()) == []


def test_a_damaged_copy_is_replaced(registry: LocalRegistry, large: Adapter, tmp_path: Path) -> None:
    digest = push(registry, large, TONE).version.digest
    entry = registry.versions.detail(Ref.of_revision(TONE, digest)).manifest.file("adapter_model.safetensors")
    assert entry is not None
    blob = next((tmp_path / "data" / "blobs").glob(f"sha256/*/{entry.sha256.hex}"))
    blob.write_bytes(bytes(entry.size))
    assert verify(registry.catalog, registry.blobs, read_bytes=True) != ()

    push_in_one_pass(registry, large, AdapterName.parse("beta/tone"))

    assert verify(registry.catalog, registry.blobs, read_bytes=True) == ()


def test_an_upload_to_a_bucket_can_be_resumed_and_is_not_stored_in_one_pass(
    tmp_path: Path, large: Adapter
) -> None:
    store = TieredBlobs(MemoryBlobs(), tmp_path / "cache", 1 << 30)
    with LocalRegistry(RegistryContext(Catalog("sqlite://"), store)) as registry:
        assert registry.uploads.ingest(TONE, large.content) is None
        assert push(registry, large, TONE).version.number == 1


def test_a_version_that_was_trained_further_is_stored_in_one_pass(
    registry: LocalRegistry, large: Adapter, tmp_path: Path
) -> None:
    push(registry, large, TONE)
    further = open_dir(tiny_lora(tmp_path / "further", layers=4, rank=64, hidden=4096, seed=2))
    assert further.content.sizes == large.content.sizes

    assert registry.uploads.ingest(TONE, further.content) is not None
    assert push(registry, further, TONE).version.number == 2
