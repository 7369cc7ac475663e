"""Bundles: their contents are restored elsewhere, their bytes are reproducible, and an invalid bundle leaves
nothing behind.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import (
    Conflict,
    Invalid,
    InvalidBundle,
    NotFound,
    ProtocolMismatch,
    Unavailable,
    Withdrawn,
)
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.base_registry import register_base
from adaptry.operations.mirror.bundles.archive import INDEX_NAME, Bundle
from adaptry.operations.mirror.bundles.index import FORMAT
from adaptry.operations.mirror.bundles.reader import inspect_bundle, load_bundle
from adaptry.operations.mirror.bundles.writer import create_bundle
from adaptry.operations.mirror.plan import MirrorSelection, list_versions
from adaptry.operations.mirror.sync import sync_once
from adaptry.operations.transfer import pull, push
from adaptry.operations.transfer.retry import RetryPolicy
from adaptry.operations.version_state import change_state
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.flaky_registry import FlakyRegistry, TamperingRegistry
from adaptry.testing.samples import tiny_base, tiny_lora, write_safetensors

TONE = AdapterName.parse("acme/tone")
MakeLora = Callable[..., Adapter]
ONE_TRY = RetryPolicy(tries=1)


@pytest.fixture
def filled(source: LocalRegistry, lora: MakeLora, tmp_path: Path) -> LocalRegistry:
    """Two versions of one adapter on a stored base, with metadata."""
    register_base(source, open_checkpoint(tiny_base(tmp_path / "base")), ("org/tiny",), store=True)
    push(source, lora(1), TONE, options=PushOptions(metrics={"accuracy": 0.5}))
    push(source, lora(2), TONE, options=PushOptions(alias="prod"))
    source.adapters.edit(TONE, AdapterEdit(description="how it talks — quietly", tags=("warm",)))
    change = StateChange(state="deprecated", reason="it stutters", successor="acme/tone@2")
    change_state(source, Ref.parse("acme/tone@1"), change)
    return source


@pytest.fixture
def file(filled: LocalRegistry, tmp_path: Path) -> Path:
    create_bundle(filled, list_versions(filled.versions, TONE), tmp_path / "tone.bundle", with_bases=True)
    return tmp_path / "tone.bundle"


def test_a_bundle_carries_versions_with_their_metrics_aliases_and_texts(
    file: Path, pair: tuple[Registry, Registry], tmp_path: Path
) -> None:
    there, here = pair

    loaded = load_bundle(here, file, aliases=True)

    assert loaded.failures == ()
    assert (sorted(loaded.copied), loaded.pointed) == (["acme/tone@1", "acme/tone@2"], ("acme/tone@prod",))
    first = here.versions.detail(Ref.parse("acme/tone@1"))
    assert first.manifest == there.versions.detail(Ref.parse("acme/tone@1")).manifest
    assert (first.version.state, first.version.base_status) == ("deprecated", "verified")
    assert first.version.last_state_change and first.version.last_state_change.successor == "acme/tone@2"
    assert first.version.metrics == {"accuracy": 0.5}
    assert here.adapters.get(TONE).description == "how it talks — quietly"
    assert here.bases.get("org/tiny").stored == there.bases.get("org/tiny").stored
    assert pull(here, "acme/tone@prod", tmp_path / "pulled").number == 2
    assert not load_bundle(here, file, aliases=True).is_change


def test_aliases_of_a_bundle_are_set_only_on_request(file: Path, target: LocalRegistry) -> None:
    load_bundle(target, file)
    assert target.aliases.list(TONE) == ()


def test_the_same_content_gives_the_same_bytes(
    filled: LocalRegistry, file: Path, target: LocalRegistry, tmp_path: Path
) -> None:
    again = tmp_path / "again.bundle"
    create_bundle(filled, reversed(list(list_versions(filled.versions, TONE))), again, with_bases=True)
    assert again.read_bytes() == file.read_bytes()
    assert list(tmp_path.glob(".*.part")) == []


def test_tar_can_list_a_bundle(file: Path) -> None:
    listed = subprocess.run(["tar", "-tf", str(file)], capture_output=True, text=True, check=True)
    names = listed.stdout.split()
    assert names[0] == INDEX_NAME
    assert {name.partition("/")[0] for name in names[1:]} == {"manifests", "bases", "files"}
    index = inspect_bundle(file)
    assert names[1:] == [entry.name for entry in index.entries]


def test_a_bundle_contains_only_the_named_versions(filled: LocalRegistry, tmp_path: Path) -> None:
    index = create_bundle(filled, [filled.versions.get(Ref.parse("acme/tone@prod"))], tmp_path / "one.bundle")
    assert [(str(one), one.aliases) for one in index.parcels] == [("acme/tone@2", ("prod",))]
    assert index.bases[0].files == ()
    assert sum(entry.kind == "file" for entry in index.entries) == 2


def test_an_existing_file_is_kept_unless_replaced(filled: LocalRegistry, file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(Conflict, match="--force"):
        create_bundle(filled, list_versions(filled.versions, TONE), file)
    assert file.read_bytes() == before
    create_bundle(filled, list_versions(filled.versions, TONE), file, replace=True)
    assert len(file.read_bytes()) < len(before)


def test_withdrawn_and_unknown_versions_are_not_packed(filled: LocalRegistry, tmp_path: Path) -> None:
    change_state(filled, Ref.parse("acme/tone@1"), StateChange(state="revoked", reason="it leaks"))
    with pytest.raises(Withdrawn):
        create_bundle(filled, list_versions(filled.versions, TONE), tmp_path / "x.bundle")
    with pytest.raises(NotFound):
        create_bundle(filled, [], tmp_path / "x.bundle")
    assert not (tmp_path / "x.bundle").exists()


def test_a_bundle_from_before_a_recall_does_not_lift_it(
    filled: LocalRegistry, target: LocalRegistry, file: Path
) -> None:
    load_bundle(target, file)
    change_state(filled, Ref.parse("acme/tone@2"), StateChange(state="revoked", reason="it leaks"))
    sync_once(filled, target, MirrorSelection())
    (failure,) = load_bundle(target, file).failures
    assert "acme/tone@2 stays revoked here" in failure.reason
    assert target.versions.get(Ref.parse("acme/tone@2")).state == "revoked"


def test_bytes_that_changed_in_the_store_are_not_packed(filled: LocalRegistry, tmp_path: Path) -> None:
    tampering = TamperingRegistry(filled.context)
    tampering.tamper = lambda chunk: bytes([chunk[0] ^ 1]) + chunk[1:]
    with pytest.raises(Conflict, match="do not match its digest; nothing was written"):
        create_bundle(tampering, list_versions(filled.versions, TONE), tmp_path / "x.bundle")
    assert [path.name for path in tmp_path.iterdir() if "bundle" in path.name] == []


def test_packing_resumes_after_a_broken_connection(
    source: LocalRegistry, target: LocalRegistry, large: MakeLora, tmp_path: Path
) -> None:
    push(source, large(1), TONE)
    breaking = FlakyRegistry(source.context)
    breaking.cuts = 4
    create_bundle(
        breaking,
        list_versions(source.versions, TONE),
        tmp_path / "x.bundle",
        retry=RetryPolicy(tries=3, first_wait=0),
    )
    assert breaking.cuts == 0
    assert load_bundle(target, tmp_path / "x.bundle").failures == ()


def test_interrupted_loading_resumes(
    source: LocalRegistry, target: LocalRegistry, large: MakeLora, tmp_path: Path
) -> None:
    for seed in (1, 2):
        push(source, large(seed), TONE)
    create_bundle(source, list_versions(source.versions, TONE), tmp_path / "x.bundle")
    breaking = FlakyRegistry(target.context)
    breaking.cuts = 2
    with pytest.raises(Unavailable):
        load_bundle(breaking, tmp_path / "x.bundle", retry=ONE_TRY)
    breaking.cuts = 0
    assert len(load_bundle(breaking, tmp_path / "x.bundle").copied) == 2
    assert breaking.sent < sum(one.size for one in source.versions.list(TONE).items) + 10_000
    assert verify(target.catalog, target.blobs) == ()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a valid bundle."""
    folder = tmp_path_factory.mktemp("sound")
    with closing(open_local(folder / "registry")) as registry:
        register_base(
            registry, open_checkpoint(tiny_base(folder / "base")), ("org/tiny",), cache=folder / "cache"
        )
        for seed in (1, 2):
            push(registry, open_dir(tiny_lora(folder / f"lora-{seed}", seed=seed)), TONE)
        create_bundle(registry, list_versions(registry.versions, TONE), folder / "sound.bundle")
    return (folder / "sound.bundle").read_bytes()


# Hostile bundles: each is a change to the bytes of a valid one.

Change = Callable[[bytes], bytes]


def at(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def rebuilt(change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> Change:
    """The same archive after its members were changed, written by another tar."""

    def rebuild(data: bytes) -> bytes:
        with tarfile.open(fileobj=io.BytesIO(data)) as old:
            # Every member is a file.
            members = [(info, old.extractfile(info).read()) for info in old]  # type: ignore[union-attr]
        change(members)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as new:
            for info, content in members:
                info.size = len(content) if info.isreg() else 0
                new.addfile(info, io.BytesIO(content))
        return out.getvalue()

    return rebuild


def renamed(name: str) -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[-1][0].name = name

    return rebuilt(change)


def linked(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members[-1][0].type, members[-1][0].linkname = tarfile.SYMTYPE, "/etc/passwd"


def doubled(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members.append(members[-1])


def more(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members.append((tarfile.TarInfo("files/more"), b"more"))


def fewer(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members.pop()


def reindexed(change: Callable[[dict[str, object]], object]) -> Change:
    """The bundle with a different index, and otherwise unchanged."""

    def edit(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        document = strictjson.loads(members[0][1], strictjson.JsonLimits(1 << 20), "it")
        change(document)
        members[0] = (members[0][0], strictjson.canonical(document))

    rebuild = rebuilt(edit)
    return lambda data: ended(rebuild(data))


def ended(data: bytes) -> bytes:
    """As ours end: Python's tar fills up to ten kilobytes."""
    return data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % 512) + bytes(1024)


def lied(document: dict[str, object]) -> None:
    document["entries"][-1]["size"] += 1  # type: ignore[index]


def swapped(document: dict[str, object]) -> None:
    entries = document["entries"]
    entries[-1], entries[-2] = entries[-2], entries[-1]  # type: ignore[index]


def twice(document: dict[str, object]) -> None:
    document["parcels"].append(document["parcels"][0])  # type: ignore[attr-defined]


def nameless(document: dict[str, object]) -> None:
    document["parcels"][0]["name"] = "../../etc"  # type: ignore[index]


def another(document: dict[str, object]) -> None:
    document["parcels"][0]["digest"] = str(Digest.of(b"another"))  # type: ignore[index]


def unknown(document: dict[str, object]) -> None:
    document["run"] = "rm -rf /"


def endless(document: dict[str, object]) -> None:
    document["entries"][-1]["size"] = 1 << 50  # type: ignore[index]


def not_finite(document: dict[str, object]) -> None:
    document["parcels"][0]["metrics"] = [["accuracy", "inf"]]  # type: ignore[index]


HOSTILE: dict[str, Change] = {
    "empty": lambda data: b"",
    "something else": lambda data: b"PK\x03\x04" + data,
    "cut in the index": lambda data: data[:700],
    "cut in a file": lambda data: data[:-3000],
    "cut before its end": lambda data: data[:-1],
    "more behind it": lambda data: data + b"\0",
    "a bundle behind it": lambda data: data + data,
    "a bit turned over in a file": lambda data: at(data, len(data) - 2000, bytes([data[-2000] ^ 1])),
    "an index that says it is huge": lambda data: at(data, 124, b"77777777777"),
    "an index whose size is no number": lambda data: at(
        data, 124, b"\x80\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00"
    ),
    "a name with dots": renamed("../../../etc/passwd"),
    "an absolute name": renamed("/etc/passwd"),
    "a long name": renamed("files/" + "x" * 300),
    "a link": rebuilt(linked),
    "a file twice": rebuilt(doubled),
    "a file more": rebuilt(more),
    "a file less": rebuilt(fewer),
    "a size that lies": reindexed(lied),
    "a size without end": reindexed(endless),
    "entries in another order": reindexed(swapped),
    "a parcel twice": reindexed(twice),
    "a name that climbs": reindexed(nameless),
    "a version without a manifest": reindexed(another),
    "a field nobody knows": reindexed(unknown),
    "a metric that is no number": reindexed(not_finite),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_damaged_bundle_is_refused_and_nothing_is_imported(
    change: Change, sound: bytes, tmp_path: Path, target: LocalRegistry
) -> None:
    file = tmp_path / "hostile.bundle"
    file.write_bytes(change(sound))

    with pytest.raises(Invalid) as raised:
        load_bundle(target, file)

    assert type(raised.value) is InvalidBundle
    assert target.adapters.list().items == ()
    assert target.bases.list().items == ()
    assert list(target.blobs.digests()) == []


def test_the_bundle_that_the_hostile_cases_change_is_intact(
    sound: bytes, tmp_path: Path, target: LocalRegistry
) -> None:
    file = tmp_path / "sound.bundle"
    file.write_bytes(reindexed(lambda document: None)(sound))
    assert len(load_bundle(target, file).copied) == 2


def test_a_bundle_of_a_newer_format_is_refused_with_the_remedy(file: Path, target: LocalRegistry) -> None:
    change = reindexed(lambda document: document.update(bundle=FORMAT + 1))
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ProtocolMismatch, match="upgrade"):
        load_bundle(target, file)


def test_a_file_that_shrinks_during_loading_is_reported(file: Path) -> None:
    with file.open("rb") as opened:
        bundle = Bundle.open(opened)
        bundle.verify()
        file.write_bytes(file.read_bytes()[:2000])
        with pytest.raises(InvalidBundle, match="shorter"):
            list(bundle.chunks(bundle.index.entries[-1]))


def test_memory_does_not_grow_with_a_bundle(
    source: LocalRegistry, target: LocalRegistry, tmp_path: Path
) -> None:
    push(source, open_dir(huge_lora(tmp_path / "huge")), TONE)
    file = tmp_path / "x.bundle"
    tracemalloc.start()
    create_bundle(source, list_versions(source.versions, TONE), file)
    assert load_bundle(target, file).copied == ("acme/tone@1",)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert file.stat().st_size > 64 << 20
    assert peak < 32 << 20


def huge_lora(folder: Path) -> Path:
    """An adapter of 64 MiB."""
    made = tiny_lora(folder)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    values = bytes(range(64)) * (1 << 19)  # no byte that would make a NaN
    tensors = {
        f"{module}.lora_A.weight": ("F32", (4, 1 << 21), values),
        f"{module}.lora_B.weight": ("F32", (1 << 21, 4), values),
    }
    write_safetensors(made / "adapter_model.safetensors", tensors)
    return made
