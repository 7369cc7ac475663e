"""Near-duplicates in a registry: signatures select candidates, exact cosines decide, and only visible
versions are found.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adaptry import connect
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.identity import Identity
from adaptry.core.refs import Ref
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_base

from .matrices import cosine, joined, norm

pytest.importorskip("torch")
from adaptry.operations.similarity import find_similar


@pytest.fixture
def registry() -> Registry:
    return connect()


def test_near_duplicates_are_found_with_their_exact_cosines(registry, lora, mixed, dense) -> None:
    a, b = lora("a"), lora("b", seed=2, rank=8)
    near, far = mixed("near", a, b, 0.05), mixed("far", a, b, 0.5)
    for parent in (b, near, far):
        push(registry, parent.adapter, f"acme/{parent.label}")

    found = find_similar(registry, a, "org/tiny", above=0.8)

    mine, *others = joined(*map(dense, ("a", "near", "far")))
    assert [each.ref for each in found.found] == ["acme/near@1", "acme/far@1"]
    assert [each.cosine for each in found.found] == pytest.approx([cosine(mine, o) for o in others], abs=1e-6)
    assert [each.ratio for each in found.found] == pytest.approx(
        [norm(o) / norm(mine) for o in others], rel=1e-6
    )
    assert (found.found[0].shared_modules, found.found[0].modules) == (4, 4)
    assert found.looked_at == 3


def test_the_threshold_and_the_limit_apply_and_omissions_are_counted(registry, lora, mixed) -> None:
    a, b = lora("a"), lora("b", seed=2)
    for place in range(4):
        near = mixed(f"near{place}", a, b, 0.01 * (place + 1))
        push(registry, near.adapter, "acme/near")

    found = find_similar(registry, a, "org/tiny", limit=2)

    assert [each.ref for each in found.found] == ["acme/near@1", "acme/near@2"]
    assert found.likely_more == 2
    assert find_similar(registry, b, "org/tiny").found == ()


def test_the_same_weights_come_first_whatever_their_scale(registry, lora, mixed) -> None:
    a, b = lora("a"), lora("b", seed=2)
    push(registry, lora("louder", alpha=32).adapter, "acme/louder")
    push(registry, mixed("near", a, b, 0.01).adapter, "acme/near")

    first, second = find_similar(registry, a, "org/tiny").found

    assert (first.ref, first.same_weights, first.ratio) == ("acme/louder@1", True, pytest.approx(4))
    assert (second.ref, second.same_weights) == ("acme/near@1", False)


def test_adapters_that_are_not_plain_loras_are_compared_by_weights_digest(registry, lora) -> None:
    a, pissa = lora("a"), lora("pissa", config={"init_lora_weights": "pissa"})
    push(registry, pissa.adapter, "acme/pissa")
    push(registry, lora("b", seed=2).adapter, "acme/b")

    plain, other = find_similar(registry, a, "org/tiny"), find_similar(registry, pissa, "org/tiny")

    (same,) = plain.found
    assert (same.ref, same.same_weights, same.cosine, same.shared_modules) == (
        "acme/pissa@1",
        True,
        None,
        None,
    )
    assert plain.by_weights_only == 1
    assert ([each.ref for each in other.found], other.by_weights_only) == (["acme/pissa@1"], 2)


def test_a_version_is_not_found_similar_to_itself_but_its_copies_are(registry, lora) -> None:
    pushed = push(registry, lora("a").adapter, "acme/a").version
    push(registry, lora("again").adapter, "zoo/a")
    subject = ParentAdapter(lora("a").adapter, "acme/a@1", pushed.digest)

    assert [each.ref for each in find_similar(registry, subject, "org/tiny").found] == ["zoo/a@1"]


def test_only_adapters_of_the_base_under_any_of_its_names_are_compared(
    registry, lora, tmp_path: Path
) -> None:
    push(registry, lora("a").adapter, "acme/a")
    push(registry, lora("other", base_name="org/other").adapter, "acme/other")
    register_base(registry, open_checkpoint(tiny_base(tmp_path / "base")), ("org/tiny", "my/tiny"))

    found = find_similar(registry, lora("b"), "my/tiny")

    assert [each.ref for each in found.found] == ["acme/a@1"]
    assert found.looked_at == 1


def test_hidden_adapters_are_not_found(registry, lora, home: Path) -> None:
    push(registry, lora("a").adapter, "acme/a")
    theirs = open_local(home, Identity.with_role("eve", "reader", ("evil",)))

    found = find_similar(theirs, lora("b"), "org/tiny")

    assert (found.found, found.looked_at) == ((), 0)
    theirs.close()


def test_an_adapter_is_read_once_and_its_signature_is_cached(registry, lora, mixed, home: Path) -> None:
    a, b = lora("a"), lora("b", seed=2)
    push(
        registry, mixed("half", a, b, 1.0).adapter, "acme/half"
    )  # not a near-duplicate, so never compared exactly
    find_similar(registry, a, "org/tiny", above=0.99)
    kept = list((home / "cache" / "signatures").rglob("*.json"))
    shutil.rmtree(home / "blobs")

    again = find_similar(registry, a, "org/tiny", above=0.99)

    assert len(kept) == 1
    assert (again.looked_at, again.notes) == (1, ())


def test_a_damaged_signature_is_recomputed(registry, lora, mixed, home: Path) -> None:
    a, b = lora("a"), lora("b", seed=2)
    push(registry, mixed("near", a, b, 0.01).adapter, "acme/near")
    first = find_similar(registry, a, "org/tiny")
    (kept,) = (home / "cache" / "signatures").rglob("*.json")
    whole = kept.read_text()
    kept.write_text(whole[:100])

    assert find_similar(registry, a, "org/tiny") == first
    assert kept.read_text() == whole


def test_an_unreadable_version_is_reported_and_the_others_are_found(
    registry, lora, mixed, home: Path
) -> None:
    a, b = lora("a"), lora("b", seed=2)
    push(registry, mixed("near", a, b, 0.01).adapter, "acme/near")
    push(registry, lora("c", seed=3).adapter, "acme/hurt")
    entry = registry.versions.detail(Ref.parse("acme/hurt@1")).manifest.file("adapter_model.safetensors")
    (blob,) = [path for path in (home / "blobs").rglob(f"*{entry.sha256.hex[6:]}*") if path.is_file()]
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)

    found = find_similar(registry, a, "org/tiny")

    assert [each.ref for each in found.found] == ["acme/near@1"]
    assert "1 version could not be read (first: acme/hurt@1" in found.notes[0]
