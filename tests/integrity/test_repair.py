"""`adaptry repair` replaces damaged files from any available copy, sets aside those without one, and deletes
nothing.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import sys
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from sqlalchemy import delete
from sqlmodel import select

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.content import FolderContent
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.errors import CorruptData
from adaptry.core.failpoints import REPAIR_POINTS
from adaptry.core.manifest import FileEntry, Manifest
from adaptry.core.refs import AdapterName, Ref
from adaptry.core.report import CheckReport
from adaptry.operations.base_registry import register_base
from adaptry.operations.mirror.bundles.writer import create_bundle
from adaptry.operations.repair import RepairResult, repair_registry
from adaptry.operations.transfer import pull, push
from adaptry.operations.transfer.file_upload import upload
from adaptry.registry.commit_info import CommitNote
from adaptry.registry.records import PushOptions
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.catalog import adapters, damage, events, versions
from adaptry.storage.catalog.rows import InspectionRow, VersionRow
from adaptry.storage.catalog.versions import BaseCheck
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.samples import tiny_base, tiny_lora, write_safetensors
from adaptry.testing.warm_python import WarmPython, run_warm

TONE = AdapterName.parse("acme/tone")
WEIGHTS = "adapter_model.safetensors"
MakeLora = Callable[[int], Path]


@pytest.fixture
def registry(folder: Path, lora: MakeLora) -> LocalRegistry:
    registry = open_local(folder)
    push(registry, open_dir(lora(1)), TONE)
    return registry


def path_of(registry: LocalRegistry, file: str = WEIGHTS) -> Path:
    entry = registry.versions.detail(Ref(TONE)).manifest.file(file)
    assert entry is not None
    assert isinstance(registry.blobs, LocalBlobs)
    return registry.blobs.folder / "sha256" / entry.sha256.hex[:2] / entry.sha256.hex


def spoil(path: Path, *, bits: int = 2) -> bytes:
    """Flips this many bits of a file in place; returns its new content."""
    data = bytearray(path.read_bytes())
    for bit in range(bits):
        data[-9 * (bit + 1)] ^= 1 << bit
    path.write_bytes(data)
    return bytes(data)


def is_whole(registry: LocalRegistry, lora: Path, tmp_path: Path) -> bool:
    pull(registry, Ref(TONE), tmp_path / "pulled", force=True)
    return (tmp_path / "pulled" / WEIGHTS).read_bytes() == (lora / WEIGHTS).read_bytes()


def test_a_damaged_file_is_not_served_and_its_version_is_shown_as_damaged(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    spoil(path_of(registry))
    (problem,) = verify(registry.catalog, registry.blobs)
    assert problem.kind == "file"
    assert registry.versions.get(Ref(TONE)).is_damaged
    assert registry.versions.search("name:tone").items[0].is_damaged
    with pytest.raises(CorruptData, match="adaptry repair"):
        pull(registry, Ref(TONE), tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    assert registry.known_damage().versions == 1


def test_pushing_the_same_files_replaces_damaged_bytes_and_keeps_them_aside(
    registry: LocalRegistry, lora: MakeLora, tmp_path: Path
) -> None:
    bad = spoil(path_of(registry))
    verify(registry.catalog, registry.blobs)
    assert not push(registry, open_dir(lora(1)), TONE).is_new
    assert verify(registry.catalog, registry.blobs) == ()
    assert not registry.versions.get(Ref(TONE)).is_damaged
    assert is_whole(registry, lora(1), tmp_path)
    # The blobs are files in these tests.
    (aside,) = (registry.blobs.folder / "damaged").iterdir()  # type: ignore[attr-defined]
    assert aside.read_bytes() == bad


def test_a_truncated_file_is_sent_again_before_any_verification(
    registry: LocalRegistry, lora: MakeLora, tmp_path: Path
) -> None:
    path = path_of(registry)
    path.write_bytes(path.read_bytes()[:-1])
    push(registry, open_dir(lora(1)), TONE)
    assert is_whole(registry, lora(1), tmp_path)


@pytest.mark.parametrize("source", ["folder", "registry", "bundle"])
def test_a_damaged_file_is_replaced_from_a_copy(
    source: str, registry: LocalRegistry, lora: MakeLora, tmp_path: Path
) -> None:
    where = lora(1)
    if source == "registry":
        where = tmp_path / "other"
        push(open_local(where), open_dir(lora(1)), "elsewhere/same")
    if source == "bundle":
        where = tmp_path / "bundle.tar"
        create_bundle(registry, [registry.versions.get(Ref(TONE))], where)
    spoil(path_of(registry))
    repaired = repair_registry(registry, sources=[str(where)], read_bytes=True)
    assert repaired.left == repaired.set_aside == ()
    assert len(repaired.done) == 1
    assert verify(registry.catalog, registry.blobs) == ()
    assert is_whole(registry, lora(1), tmp_path)


def test_a_flipped_bit_in_a_small_file_is_repaired_without_a_copy(
    registry: LocalRegistry, lora: MakeLora, tmp_path: Path
) -> None:
    spoil(path_of(registry), bits=1)
    assert repair_registry(registry, read_bytes=True).left == ()
    assert is_whole(registry, lora(1), tmp_path)


def test_a_file_without_a_source_is_moved_aside_and_can_be_pushed_later(
    registry: LocalRegistry, lora: MakeLora, tmp_path: Path
) -> None:
    path = path_of(registry)
    bad = spoil(path)
    repaired = repair_registry(registry, read_bytes=True)
    assert len(repaired.set_aside) == len(repaired.left) == 1
    assert not path.exists()
    assert [one.read_bytes() for one in (path.parents[2] / "damaged").iterdir()] == [bad]
    with pytest.raises(CorruptData, match="lost"):
        pull(registry, Ref(TONE), tmp_path / "pulled")
    push(registry, open_dir(lora(1)), TONE)
    assert is_whole(registry, lora(1), tmp_path)


def test_a_copy_that_is_damaged_as_well_replaces_nothing(
    registry: LocalRegistry, lora: MakeLora, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    push(open_local(other), open_dir(lora(1)), TONE)
    spoil(path_of(open_local(other)))
    spoil(path_of(registry), bits=3)
    repaired = repair_registry(registry, sources=[str(other), str(lora(1))], read_bytes=True)
    assert repaired.left == ()
    assert str(lora(1)) in repaired.done[0]


def test_a_dry_run_changes_nothing(registry: LocalRegistry, lora: MakeLora, folder: Path) -> None:
    path = path_of(registry)
    bad = spoil(path)
    repaired = repair_registry(registry, sources=[str(lora(1))], read_bytes=True, dry_run=True)
    assert repaired.is_dry
    assert "replace" in repaired.done[0]
    assert path.read_bytes() == bad
    assert registry.known_damage().files == 0


@pytest.mark.parametrize("bits", [1, 3])
def test_a_damaged_manifest_is_noticed_by_every_reader_and_replaced(
    bits: int, registry: LocalRegistry, lora: MakeLora, folder: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.tar"
    create_bundle(registry, [registry.versions.get(Ref(TONE))], bundle)
    change_manifest(folder, bits)
    with pytest.raises(CorruptData, match="manifest"):
        registry.versions.detail(Ref(TONE))
    assert {one.kind for one in verify(registry.catalog, registry.blobs)} == {"manifest"}
    sources = [] if bits == 1 else [str(bundle)]
    assert repair_registry(registry, sources=sources).left == ()
    assert is_whole(registry, lora(1), tmp_path)
    assert not registry.versions.get(Ref(TONE)).is_damaged


def test_a_push_of_the_same_files_replaces_a_damaged_manifest(
    registry: LocalRegistry, lora: MakeLora, folder: Path
) -> None:
    change_manifest(folder, 5)
    push(registry, open_dir(lora(1)), TONE)
    assert verify(registry.catalog, registry.blobs) == ()


def change_manifest(folder: Path, bits: int) -> None:
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as database, database:
        digest, manifest = database.execute(
            "SELECT digest, manifest FROM revisions WHERE length(manifest) > 20"
        ).fetchone()
        data = bytearray(manifest)
        for bit in range(bits):
            data[40 + 3 * bit] ^= 1
        database.execute("UPDATE revisions SET manifest = ? WHERE digest = ?", (bytes(data), digest))


def test_derived_rows_are_rebuilt(busy: LocalRegistry, folder: Path) -> None:
    found = busy.versions.search("module:q_proj tag:warm").items
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as database, database:
        database.execute("DELETE FROM postings WHERE term_id % 2 = 0")
        database.execute("UPDATE terms SET text = 'q_prok' WHERE text = 'q_proj'")
        database.execute("UPDATE versions SET rank = 99, targets = 'nothing', findings = 7 WHERE number = 2")
        database.execute("UPDATE version_details SET spec = x'00' WHERE version_id = 1")
        database.execute("UPDATE metric_summaries SET highest = 1000")
        database.execute("UPDATE bases SET summary = replace(summary, 'llama', 'lemma')")
        database.execute("UPDATE weights SET weights_digest = file_digest")
        database.execute("UPDATE namespaces SET name = 'acne' WHERE name = 'acme'")
        database.execute("UPDATE adapters SET folded = NULL WHERE name = 'acme/tone'")
        database.execute("UPDATE aliases SET folded = 'brief' WHERE alias = 'brief'")
        database.execute("UPDATE marks SET folded = 'mine' WHERE name = 'main'")
        database.execute("UPDATE base_names SET namespace = 'orb', folded = NULL")
        database.execute("UPDATE inspections SET nan = 3")
    assert busy.catalog
    repaired = repair_registry(busy, read_bytes=True)
    assert repaired.left == ()
    assert verify(busy.catalog, busy.blobs) == ()
    assert busy.versions.search("module:q_proj tag:warm").items == found


def test_a_version_stored_under_older_rules_gains_todays_findings_and_keeps_everything_else(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    base = tiny_base(tmp_path / "base")
    register_base(registry, open_checkpoint(base), names=["org/model"], cache=tmp_path / "cache")
    name = AdapterName.parse("acme/dropped")
    source = prefixed_twice(tiny_lora(tmp_path / "dropped", base_name="org/model"))
    push(registry, open_dir(source), name, options=PushOptions(force_reason="measured", alias="prod"))
    before = registry.versions.detail(Ref(name))
    assert before.report.is_blocked
    with registry.catalog.write() as tx:  # as if the registry's rules were from before this check
        row = tx.exec(select(VersionRow).where(VersionRow.digest == before.version.digest.hex)).one()
        assert row.id is not None
        old = BaseCheck(before.version.base_id, "org/model", "verified", CheckReport(base="org/model"))
        versions.set_base_check(tx, row.id, old)
        told = {"base": old.base_id, "base_status": old.status}
        adapter = adapters.find(tx, name)
        events.record(
            tx, "version.rechecked", at=registry.clock(), by="local", adapter=adapter, number=1, detail=told
        )
    assert registry.versions.detail(Ref(name)).report.findings == ()

    (problem,) = verify(registry.catalog, registry.blobs)
    assert problem.kind == "outdated" and not problem.is_damage
    assert "gains " in problem.reason
    repaired = repair_registry(registry, read_bytes=True)
    assert repaired.left == () and len(repaired.done) == 1
    after = registry.versions.detail(Ref(name))
    assert after.report == before.report
    assert after.version == before.version
    assert after.version.state == "active" and after.version.aliases == ("prod",)
    assert verify(registry.catalog, registry.blobs) == ()


def test_an_inspection_by_an_older_server_is_repeated_and_the_report_is_updated(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    name = AdapterName.parse("acme/scaled")
    push(registry, open_dir(untrained_ia3(tmp_path / "scaled")), name)
    before = registry.versions.detail(Ref(name))
    with registry.catalog.write() as tx:  # earlier servers recorded only four values
        row = tx.exec(select(VersionRow).where(VersionRow.digest == before.version.digest.hex)).one()
        others = tuple(found for found in before.report.findings if found.code != "untrained")
        versions.set_report(tx, row.id or 0, before.report.model_copy(update={"findings": others}))
        file = before.manifest.weights[WEIGHTS]
        known = tx.exec(select(InspectionRow).where(InspectionRow.file_digest == file.hex)).one()
        known.statistics = zlib.compress(zlib.decompress(known.statistics).replace(b", true]", b"]"))

    problems = verify(registry.catalog, registry.blobs)
    assert [problem.kind for problem in problems] == ["outdated", "outdated"]
    repaired = repair_registry(registry, read_bytes=True)

    assert repaired.left == ()
    assert registry.versions.detail(Ref(name)).report == before.report
    assert "untrained" in {found.code for found in before.report.findings}
    assert verify(registry.catalog, registry.blobs) == ()


def untrained_ia3(folder: Path) -> Path:
    """Multipliers of one, as PEFT saves an IA3 before training."""
    ones = ("F32", (16, 1), struct.pack("<f", 1.0) * 16)
    tiny_lora(folder, config={"peft_type": "IA3", "target_modules": ["v_proj"], "feedforward_modules": []})
    names = [f"base_model.model.model.layers.{layer}.self_attn.v_proj.ia3_l" for layer in (0, 1)]
    write_safetensors(folder / WEIGHTS, dict.fromkeys(names, ones))
    return folder


def prefixed_twice(folder: Path) -> Path:
    """An adapter with names for which PEFT finds no module."""
    weights = load_file(folder / WEIGHTS)
    save_file(
        {name.replace("base_model.model.", "base_model.model.foo."): it for name, it in weights.items()},
        folder / WEIGHTS,
    )
    return folder


def test_repaired_weights_are_inspected_again(registry: LocalRegistry, lora: MakeLora) -> None:
    found = registry.versions.inspect_tensors(Ref(TONE)).items
    with (
        registry.catalog.write() as tx
    ):  # as if the damaged bytes had been inspected, not those that were pushed
        (known,) = tx.exec(select(InspectionRow)).all()
        known.nan += 1
        known.statistics = zlib.compress(zlib.decompress(known.statistics).replace(b": [0,", b": [1,", 1))
    assert verify(registry.catalog, registry.blobs, read_bytes=False) == ()
    (problem,) = verify(registry.catalog, registry.blobs)
    assert problem.reason == "its values are not those of the tensors in the file"
    spoil(path_of(registry))
    repair_registry(registry, sources=[str(lora(1))], read_bytes=True)
    with registry.catalog.read() as tx:
        assert tx.exec(select(InspectionRow)).all() == []
    assert registry.versions.inspect_tensors(Ref(TONE)).items == found
    assert verify(registry.catalog, registry.blobs) == ()


def test_a_wrong_inspection_is_dropped_and_repeated(registry: LocalRegistry) -> None:
    found = registry.versions.inspect_tensors(Ref(TONE)).items
    with registry.catalog.write() as tx:
        (known,) = tx.exec(select(InspectionRow)).all()
        known.statistics = b"none"
    repaired = repair_registry(registry)
    assert [what.split(": ")[1][:13] for what in repaired.done] == ["inspection of"]
    assert registry.versions.inspect_tensors(Ref(TONE)).items == found


def test_nothing_is_derived_from_files_known_to_be_damaged(registry: LocalRegistry, lora: MakeLora) -> None:
    """The damage is known, and the file not yet moved aside: a push of a manifest, an inspection and the
    registration of a base stop there.
    """
    manifest = registry.versions.detail(Ref(TONE)).manifest
    entry = manifest.file(WEIGHTS)
    assert entry is not None
    spoil(path_of(registry))
    with registry.catalog.write() as tx:
        tx.execute(delete(InspectionRow))
    verify(registry.catalog, registry.blobs)
    assert path_of(registry).exists()
    other = manifest.model_copy(update={"provenance": {"run": "again"}})
    registry.commits.create_branch(TONE, "trial")
    named = {one.path: (one.size, one.sha256) for one in manifest.files}
    tree = Manifest.of({**named, f"checkpoint-1/{WEIGHTS}": (entry.size, entry.sha256)}, base=manifest.base)
    for ask in (
        lambda: registry.versions.put(TONE, other.to_bytes(), PushOptions()),
        lambda: registry.commits.put(TONE, "trial", tree.to_bytes(), CommitNote(title="Again")),
        lambda: registry.versions.inspect_tensors(Ref(TONE)),
    ):
        with pytest.raises(CorruptData, match="is damaged in the registry: its bytes have changed"):
            ask()
    assert registry.adapters.get(TONE).versions == 1


def test_a_base_is_registered_beside_damaged_versions_and_never_made_of_damaged_files(
    registry: LocalRegistry, lora: MakeLora, tmp_path: Path
) -> None:
    push(registry, open_dir(lora(2)), TONE)
    spoil(path_of(registry))
    verify(registry.catalog, registry.blobs)
    checkpoint = open_checkpoint(tiny_base(tmp_path / "base"))
    register_base(registry, checkpoint, names=("org/tiny-llama",))
    parts = {path.name: path.read_bytes() for path in checkpoint.folder.iterdir()}
    files = []
    for name, data in parts.items():
        digest, size = registry.bases.store_generated_file([data])
        files.append(FileEntry(path=name, size=size, sha256=digest))
    record = fingerprint(checkpoint)
    with registry.catalog.write() as tx:
        damage.mark_damaged(tx, files[0].sha256, "its bytes have changed", [], registry.clock())
    with pytest.raises(CorruptData, match="is damaged in the registry"):
        registry.bases.adopt(record, ("org/tiny",), tuple(files))
    registry.bases.store_generated_file([parts[files[0].path]])
    assert registry.bases.adopt(record, ("org/tiny",), tuple(files)).is_stored


def test_a_value_that_cannot_be_derived_is_kept_and_reported(busy: LocalRegistry, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as database, database:
        database.execute("UPDATE aliases SET version_id = 1 WHERE alias = 'stage'")
    left, *_ = repair_registry(busy).left
    assert left.startswith("acme/tone")


@pytest.mark.parametrize("place", ["repair.after_aside", "repair.after_upload", "blobs.after_rename"])
def test_a_killed_repair_is_finished_by_the_next(
    place: str, registry: LocalRegistry, folder: Path, lora: MakeLora, tmp_path: Path
) -> None:
    assert place in REPAIR_POINTS or place.startswith("blobs.")
    spoil(path_of(registry))
    verify(registry.catalog, registry.blobs)
    dead = run_warm(
        [sys.executable, "-c", _MEND, str(folder), str(lora(1))],
        env={**os.environ, "ADAPTRY_FAILPOINT": place},
        check=False,
    )
    assert dead.returncode == -9
    assert repair_registry(registry, sources=[str(lora(1))]).left == ()
    assert is_whole(registry, lora(1), tmp_path)
    assert verify(registry.catalog, registry.blobs) == ()


def test_two_concurrent_repairs_and_a_push_leave_one_intact_file(
    registry: LocalRegistry, folder: Path, lora: MakeLora, tmp_path: Path
) -> None:
    spoil(path_of(registry))
    verify(registry.catalog, registry.blobs)
    both = [WarmPython([sys.executable, "-c", _MEND, str(folder), str(lora(1))]) for _ in range(2)]
    push(registry, open_dir(lora(1)), TONE)
    assert [one.wait() for one in both] == [0, 0]
    assert verify(registry.catalog, registry.blobs) == ()
    assert is_whole(registry, lora(1), tmp_path)


_MEND = """
import sys
from adaptry.operations.repair import repair_registry
from adaptry.storage.connect import open_local
assert repair_registry(open_local(sys.argv[1]), sources=[sys.argv[2]]).left == ()
"""


def test_bytes_that_are_replaced_while_they_are_read_are_not_set_aside(registry: LocalRegistry) -> None:
    """A push that finishes between the check and the move takes precedence."""
    path = path_of(registry)
    good = path.read_bytes()
    spoil(path)

    class Late(LocalBlobs):
        def is_sound(self, digest: Digest) -> bool:
            found = super().is_sound(digest)
            (self.folder / "new").write_bytes(good)
            (self.folder / "new").replace(path)
            return found

    assert isinstance(registry.blobs, LocalBlobs)
    assert not Late(registry.blobs.folder).set_aside(Digest.of(good))
    assert path.read_bytes() == good


def test_a_stored_base_is_repaired_too(busy: LocalRegistry, tmp_path: Path) -> None:
    (base,) = busy.bases.list().items
    entry = max(base.stored, key=lambda one: one.size)
    assert isinstance(busy.blobs, LocalBlobs)
    spoil(busy.blobs.path_of(entry.sha256), bits=4)
    verify(busy.catalog, busy.blobs)
    with pytest.raises(CorruptData, match=entry.path):
        busy.bases.read_file(base.id, entry.path)
    assert not busy.files.has(base.id, entry.sha256)
    upload(busy, base.id, FolderContent(tmp_path / "base", [entry.path]), entry.path, entry.sha256)
    assert verify(busy.catalog, busy.blobs) == ()


def test_repaired_damage_is_counted_once(registry: LocalRegistry, lora: MakeLora) -> None:
    spoil(path_of(registry))
    first = repair_registry(registry, sources=[str(lora(1))], read_bytes=True)
    assert first.done
    assert repair_registry(registry, sources=[str(lora(1))], read_bytes=True) == RepairResult(
        done=(), set_aside=(), left=()
    )
