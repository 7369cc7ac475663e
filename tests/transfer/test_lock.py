"""Locks: refs pinned to digests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Invalid, NotFound, ProtocolMismatch
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations import lockfile, transfer
from adaptry.storage.local import LocalRegistry
from adaptry.testing.samples import tiny_lora

TONE = AdapterName.parse("acme/tone")
REFS = [Ref.parse("acme/tone"), Ref.parse("acme/tone@1"), Ref.parse("acme/tone")]


def test_a_lock_reads_back_as_it_was_written(registry: LocalRegistry, folder: Path) -> None:
    transfer.push(registry, open_dir(folder), TONE)

    pinned = lockfile.pin_refs(registry.versions, REFS)

    assert lockfile.LockFile.parse(pinned.to_text().encode(), "adaptry.lock") == pinned
    assert [pin.ref for pin in pinned.pins] == ["acme/tone", "acme/tone@1"]


def test_a_lock_lists_refs_that_have_moved(registry: LocalRegistry, folder: Path, tmp_path: Path) -> None:
    transfer.push(registry, open_dir(folder), TONE)
    pinned = lockfile.pin_refs(registry.versions, REFS)
    assert lockfile.find_stale_pins(registry.versions, pinned) == ()

    transfer.push(registry, open_dir(tiny_lora(tmp_path / "better", seed=7)), TONE)

    (change,) = lockfile.find_stale_pins(registry.versions, pinned)
    assert change.pin.ref == "acme/tone"
    assert change.now is not None
    assert change.now.number == 2


def test_a_pin_of_a_deleted_adapter_counts_as_moved(registry: LocalRegistry, folder: Path) -> None:
    transfer.push(registry, open_dir(folder), TONE)
    pinned = lockfile.pin_refs(registry.versions, REFS)

    registry.adapters.delete(TONE)

    assert [change.now for change in lockfile.find_stale_pins(registry.versions, pinned)] == [None, None]


def test_an_unknown_ref_cannot_be_pinned(registry: LocalRegistry) -> None:
    with pytest.raises(NotFound):
        lockfile.pin_refs(registry.versions, REFS)


PIN = {"ref": "acme/tone", "name": "acme/tone", "number": 1, "digest": f"sha256:{'0' * 64}"}


@pytest.mark.parametrize(
    ("document", "error", "says"),
    [
        ([], Invalid, "writes one"),
        ({"lock": True, "pins": []}, Invalid, "writes one"),
        ({"lock": 2, "pins": []}, ProtocolMismatch, "upgrade"),
        ({"lock": 1, "pins": [{**PIN, "digest": "sha256:0"}]}, Invalid, "pins.0.digest"),
        ({"lock": 1, "pins": [{**PIN, "ref": "../etc"}]}, Invalid, "is a path, not the name of an adapter"),
        ({"lock": 1, "pins": [{**PIN, "ref": "acme/other"}]}, Invalid, "another adapter"),
    ],
    ids=["no lock", "a flag for a schema", "from the future", "no digest", "a path for a ref", "two names"],
)
def test_a_malformed_lock_is_refused(document: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        lockfile.LockFile.parse(json.dumps(document).encode(), "adaptry.lock")
