"""A deletion ends all of an adapter's versions at once; rows of many versions are removed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from sqlmodel import func, select

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import NotFound
from adaptry.core.identity import Identity
from adaptry.core.quotas import QuotaSubject
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.storage.catalog import index_updates, removals, stored_use
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import CommitRow, PostingRow, VersionRow
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.gc import collect_garbage
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora

from .test_index_updates import steps, with_versions

TONE, VOICE = map(AdapterName.parse, ("acme/tone", "acme/voice"))
COUNT = 4


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def registry(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalRegistry]:
    """A registry that removes versions one by one, on request."""
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.database()
    registry = with_versions(url, tmp_path, COUNT)
    push(registry, open_dir(tiny_lora(tmp_path / "voice", seed=0)), str(VOICE))
    registry.metrics.log(Ref.parse("acme/tone@2"), {"accuracy": 0.5})
    monkeypatch.setattr(removals, "MOST_VERSIONS", 1)
    monkeypatch.setattr(removals, "MOST_COMMITS", 2)
    registry.catalog.completes_index_updates = False
    yield registry
    registry.close()


def test_nothing_of_a_deleted_adapter_is_found_while_its_versions_are_removed(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    registry.adapters.delete(TONE)
    member = Identity.with_role("bob", "viewer", ["acme"])
    readers = (registry, registry.on_behalf_of(member))
    left = [rows(registry)]
    while index_updates_are_left(registry):
        for reader in readers:
            for query in ("", "acme", "name:acme/tone", "-tag:draft", "metric.accuracy>0", "module:q_proj"):
                found = {one.name for one in reader.versions.search(query).items}
                assert found <= {VOICE}, query
            assert [one.name for one in reader.adapters.list().items] == [VOICE]
            with pytest.raises(NotFound):
                reader.versions.get(Ref.parse("acme/tone@1"))
        with registry.catalog.read() as tx:
            assert stored_use.find(tx, QuotaSubject("namespace", "acme")).versions == 1
        assert verify(registry.catalog, registry.blobs) == ()
        index_updates.complete(registry.catalog, steps(1))
        left.append(rows(registry))
    versions, commits = zip(*left, strict=True)
    assert versions[0] == COUNT + 1, "the deletion itself removes no versions"
    assert versions[-1] == 1, "the other adapter's"
    assert max(before - after for before, after in pairwise(versions)) == 1
    assert commits[-1] == 2, "that one's, and the empty first commit"
    assert verify(registry.catalog, registry.blobs) == ()


def test_a_name_is_used_again_while_its_former_versions_are_removed(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    registry.adapters.delete(TONE)
    push(registry, open_dir(tiny_lora(tmp_path / "again", seed=1)), str(TONE))
    assert [one.number for one in registry.versions.search("name:acme/tone").items] == [COUNT + 1]
    index_updates.complete(registry.catalog)
    assert [one.number for one in registry.versions.list(TONE).items] == [COUNT + 1]
    registry.adapters.delete(TONE)
    registry.adapters.rename(VOICE, TONE)
    index_updates.complete(registry.catalog)
    assert [one.number for one in registry.versions.search("name:acme/tone").items] == [1]
    assert verify(registry.catalog, registry.blobs) == ()


def test_without_a_server_a_deletion_returns_when_the_versions_are_removed(registry: LocalRegistry) -> None:
    registry.catalog.completes_index_updates = True
    registry.adapters.delete(TONE)
    assert rows(registry) == (1, 2)


def test_a_sweep_removes_the_versions_that_a_killed_deletion_left(registry: LocalRegistry) -> None:
    registry.adapters.delete(TONE)
    index_updates.complete(registry.catalog, steps(2))
    collect_garbage(registry)
    assert rows(registry) == (1, 2)


def test_a_removal_that_another_process_overtakes_leaves_the_new_versions(
    registry: LocalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter's name is used again between a process's look-up of removals and its next transaction."""
    registry.adapters.delete(TONE)
    original = registry.catalog.write_nondurable

    @contextmanager
    def overtaken() -> Iterator[Transaction]:
        monkeypatch.setattr(registry.catalog, "write_nondurable", original)
        push(registry, open_dir(tiny_lora(tmp_path / "again", seed=1)), str(TONE))
        with original() as tx:
            yield tx

    monkeypatch.setattr(registry.catalog, "write_nondurable", overtaken)
    index_updates.complete(registry.catalog)
    assert [one.number for one in registry.versions.list(TONE).items] == [COUNT + 1]
    assert verify(registry.catalog, registry.blobs) == ()


def index_updates_are_left(registry: LocalRegistry) -> bool:
    with registry.catalog.read_prepared() as tx:
        return bool(index_updates.removed_adapters(tx))


def rows(registry: LocalRegistry) -> tuple[int, int]:
    """The number of versions and commits in the catalog."""
    with registry.catalog.read() as tx:
        orphans = select(PostingRow.version_id).where(PostingRow.version_id.not_in(select(VersionRow.id)))  # type: ignore[attr-defined]
        assert tx.exec(orphans).first() is None
        versions = tx.exec(select(func.count()).select_from(VersionRow)).one()
        return versions, tx.exec(select(func.count()).select_from(CommitRow)).one()
