"""Pushing and pulling: the pulled files equal the pushed ones, and are complete or absent."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Conflict, DigestMismatch, InvalidRef, NotFound
from adaptry.core.manifest import BaseClaim
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations import transfer
from adaptry.registry.records import PushOptions, PushResult
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.versions import LocalVersions
from adaptry.testing.samples import tiny_lora, write_safetensors


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_pull_returns_exactly_the_pushed_files(
    registry: LocalRegistry, folder: Path, tmp_path: Path
) -> None:
    before = files(folder)
    (folder / "optimizer.pt").write_bytes(b"state")
    pushed = transfer.push(registry, open_dir(folder), "acme/tone")

    version = transfer.pull(registry, "acme/tone", tmp_path / "tone")

    assert version.digest == pushed.version.digest
    assert files(tmp_path / "tone") == before


def test_pushing_the_same_files_returns_the_existing_version(registry: LocalRegistry, folder: Path) -> None:
    first = transfer.push(registry, open_dir(folder), "acme/tone")
    again = transfer.push(registry, open_dir(folder), "acme/tone")

    assert (first.is_new, again.is_new) == (True, False)
    assert again.version.number == first.version.number == 1


def test_the_base_that_the_config_names_is_claimed(registry: LocalRegistry, folder: Path) -> None:
    transfer.push(registry, open_dir(folder), "acme/tone")

    assert registry.versions.detail(Ref.parse("acme/tone")).manifest.base == BaseClaim(name="org/tiny")


def test_a_local_path_is_not_claimed_as_a_base(registry: LocalRegistry, tmp_path: Path) -> None:
    trained = tiny_lora(tmp_path / "out", base_name="/somewhere/models/base")

    transfer.push(registry, open_dir(trained), "acme/tone")

    assert registry.versions.detail(Ref.parse("acme/tone")).manifest.base is None


def test_a_file_that_changes_while_it_is_pushed_is_refused(registry: LocalRegistry, folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    hashed: list[str] = []

    def train_on(text: str, done: int, total: int) -> None:
        hashed.append(text)
        if text == "hashing adapter_model.safetensors" and done == total:
            with weights.open("rb+") as file:
                file.seek(-4, 2)
                file.write(b"\1\2\3\4")

    with pytest.raises(DigestMismatch):
        transfer.push(registry, open_dir(folder), "acme/tone", progress=train_on)

    assert "uploading adapter_model.safetensors" in hashed
    with pytest.raises(NotFound):
        registry.versions.get(Ref.parse("acme/tone"))


def test_existing_large_files_are_not_sent_again(registry: LocalRegistry, large: Path) -> None:
    transfer.push(registry, open_dir(large), "acme/tone")
    (large / "README.md").write_text("# Tone\n")
    told: list[str] = []

    transfer.push(
        registry, open_dir(large), "acme/tone", progress=lambda text, done, total: told.append(text)
    )

    assert {text for text in told if text.startswith("uploading")} == {
        "uploading README.md",
        "uploading adapter_config.json",
    }


def test_a_pull_over_the_same_files_does_nothing(
    registry: LocalRegistry, folder: Path, tmp_path: Path
) -> None:
    transfer.push(registry, open_dir(folder), "acme/tone")
    transfer.pull(registry, "acme/tone", tmp_path / "tone")
    transfer.pull(registry, "acme/tone", tmp_path / "tone")

    assert registry.adapters.get(AdapterName.parse("acme/tone")).downloads == 1


def test_another_adapter_is_replaced_only_on_request(
    registry: LocalRegistry, folder: Path, tmp_path: Path
) -> None:
    transfer.push(registry, open_dir(folder), "acme/tone")
    target = tiny_lora(tmp_path / "tone", rank=8)
    before = files(target)

    with pytest.raises(Conflict, match="--force"):
        transfer.pull(registry, "acme/tone", target)
    assert files(target) == before

    transfer.pull(registry, "acme/tone", target, force=True)
    assert files(target) == files(folder)


def test_files_that_are_not_an_adapters_are_never_replaced(
    registry: LocalRegistry, folder: Path, tmp_path: Path
) -> None:
    transfer.push(registry, open_dir(folder), "acme/tone")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")

    with pytest.raises(Conflict, match="choose another place"):
        transfer.pull(registry, "acme/tone", tmp_path / "notes", force=True)

    assert (tmp_path / "notes" / "thesis.txt").read_text() == "years of work"


def test_an_unknown_ref_leaves_no_folder(registry: LocalRegistry, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        transfer.pull(registry, "acme/nothing", tmp_path / "nothing")
    with pytest.raises(InvalidRef, match="a ref is namespace/name"):
        transfer.pull(registry, "nothing", tmp_path / "nothing")

    assert not (tmp_path / "nothing").exists()


def test_a_copy_in_another_registry_has_the_same_digest(
    registry: LocalRegistry, elsewhere: LocalRegistry, folder: Path
) -> None:
    pushed = transfer.push(registry, open_dir(folder), "acme/tone")

    copied = transfer.copy(registry, "acme/tone@1", elsewhere, "team/tone", options=PushOptions(alias="prod"))

    assert copied.version.digest == pushed.version.digest
    assert elsewhere.versions.get(Ref.parse("team/tone@prod")).number == 1


def test_a_revision_opened_from_a_registry_is_the_adapter_that_was_pushed(
    registry: LocalRegistry, folder: Path, tmp_path: Path
) -> None:
    adapter = open_dir(folder)
    transfer.push(registry, adapter, "acme/tone")

    opened = transfer.open_revision(registry, "acme/tone", tmp_path / "cache")
    again = transfer.open_revision(registry, "acme/tone", tmp_path / "cache")

    assert opened.spec == again.spec == adapter.spec
    assert opened.weights_digest() == adapter.weights_digest()


def test_memory_does_not_grow_with_the_file(registry: LocalRegistry, folder: Path, tmp_path: Path) -> None:
    size = 96 << 20
    rows = size // 4 // 1024
    write_safetensors(
        folder / "adapter_model.safetensors",
        {
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": (
                "F32", (4, 1024), bytes(4 * 4096)),
            "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": (
                "F32", (rows // 4 * 1024, 4), bytes(size)),
        },
    )  # fmt: skip
    adapter = open_dir(folder)

    tracemalloc.start()
    transfer.push(registry, adapter, "acme/tone")
    transfer.pull(registry, "acme/tone", tmp_path / "tone")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 32 << 20


@dataclass(frozen=True)
class VersionsFromBefore(LocalVersions):
    """The versions of a server that does not support pushes with files."""

    def put_with_files(
        self, name: AdapterName, manifest: bytes, options: PushOptions, files: Sequence[bytes]
    ) -> PushResult:
        raise NotFound("nothing at this address")


def test_a_server_without_pushes_with_files_gets_them_one_by_one(
    registry: LocalRegistry, folder: Path
) -> None:
    older = LocalRegistry(registry.context)
    older.versions = VersionsFromBefore(registry.context)

    pushed = transfer.push(older, open_dir(folder), "acme/tone")

    assert (pushed.version.number, pushed.is_new) == (1, True)
    with pytest.raises(NotFound, match="nothing at this address"):
        transfer.push(older, open_dir(folder), "acme/absent", options=PushOptions(create=False))
