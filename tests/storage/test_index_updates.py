"""An edit of an adapter with many versions changes few rows at once, and searches are right at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import select

from adaptry.adapters.adapter import open_dir
from adaptry.core.identity import LOCAL
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import AdapterEdit
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog import index_updates
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.catalog.rows import PostingRow
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora

from .queries_model import everything, filled
from .test_queries import MEMBER, READER, check

TONE, VOICE, BETA, ECHO = map(AdapterName.parse, ("acme/tone", "acme/voice", "beta/tone", "gamma/echo"))
SONG = AdapterName.parse("acme/song")
EDITS: Mapping[str, Callable[[LocalRegistry], object]] = {
    "words and tags": lambda it: it.adapters.edit(
        TONE, AdapterEdit(description="New words", tags=("draft",))
    ),
    "other words": lambda it: it.adapters.edit(TONE, AdapterEdit(description="A narrator's new voice")),
    "shown": lambda it: it.adapters.edit(VOICE, AdapterEdit(visibility="public")),
    "hidden": lambda it: it.adapters.edit(ECHO, AdapterEdit(visibility="private")),
    "renamed": lambda it: it.adapters.rename(BETA, SONG),
}
TERMS = (
    *("narrator", "narr*", "new", "song", "tone", "name:acme/tone", "name:tone", "name:acme/*", "name:s*"),
    *(
        "namespace:beta",
        "namespace:acme",
        "namespace:a*",
        "tag:speech",
        "tag:draft",
        "has:tag",
        "has:licence",
    ),
    *("licence:mit", "tag:d*", "words OR tag:draft", "-(new tag:draft) rank>=0", "narrator module:q_proj"),
)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty catalog."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/catalog.sqlite"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
def one_row_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every edit complete later, version by version."""
    monkeypatch.setattr(index_updates, "MAX_ROWS", 0)


def steps(count: int) -> Callable[[], bool]:
    """Returns True this many times."""
    left = iter([True] * count)
    return lambda: next(left, False)


@pytest.mark.usefixtures("one_row_at_once")
@pytest.mark.parametrize("selective", [1, 2000])
def test_searches_are_right_before_during_and_after_an_update(
    catalog: str, selective: int, tmp_path: Path
) -> None:
    registry, clock = filled(catalog, tmp_path / "loras")
    registry.catalog.completes_index_updates = False
    for edit in EDITS.values():
        edit(registry)
        versions = everything(registry)
        for _ in range(2):
            for number, term in enumerate(TERMS):
                library, is_reversed = (registry, clock, versions), bool(number % 2)
                check(library, term, "newest", is_reversed, LOCAL, selective, 40_000, 50)
                who = (LOCAL, READER, MEMBER)[number % 3]
                check(library, f"-({term})", "newest", is_reversed, who, selective, 40_000, 50)
            for who in (READER, MEMBER):
                check((registry, clock, versions), "", "newest", False, who, selective, 40_000, 2)
            assert outdated(registry)
            assert verify(registry.catalog, registry.blobs) == ()
            index_updates.complete(registry.catalog, steps(1))
    index_updates.complete(registry.catalog)
    assert outdated(registry) == set()
    assert verify(registry.catalog, registry.blobs) == ()
    registry.close()


def outdated(registry: LocalRegistry) -> set[AdapterName]:
    with registry.catalog.read_prepared() as tx:
        names = [
            text
            for one in index_updates.outdated_adapters(tx)
            for field, text in one.terms
            if field == "name"
        ]
    return {AdapterName.parse(name) for name in names if "/" in name}


def test_no_transaction_changes_many_rows(
    catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = with_versions(catalog, tmp_path, 12)
    monkeypatch.setattr(index_updates, "MAX_ROWS", 8)
    changed = [0]
    original = registry.catalog.write_nondurable
    before = postings(registry)

    @contextmanager
    def counted() -> Iterator[Transaction]:
        nonlocal before
        if len(changed) == 1:
            assert postings(registry) == before, "the edit itself changes no terms of versions"
        with original() as tx:
            yield tx
        after = postings(registry)
        changed.append(len(before ^ after))
        before = after

    monkeypatch.setattr(registry.catalog, "write_nondurable", counted)
    registry.adapters.edit(TONE, AdapterEdit(description="three new words", tags=("draft",)))
    assert max(changed) <= 8
    assert sum(changed) == 12 * 5  # three words and a tag, which is a word too
    assert outdated(registry) == set()
    registry.close()


def test_an_edit_of_an_adapter_with_few_versions_needs_no_update(catalog: str, tmp_path: Path) -> None:
    registry = with_versions(catalog, tmp_path, 3)
    registry.catalog.completes_index_updates = False
    before = postings(registry)
    registry.adapters.edit(TONE, AdapterEdit(tags=("draft",)))
    assert len(postings(registry) ^ before) == 3 * 2
    assert outdated(registry) == set()
    registry.close()


def test_the_next_versions_are_found_by_the_index_of_their_adapter(catalog: str, tmp_path: Path) -> None:
    registry = with_versions(catalog, tmp_path, 2)
    with registry.catalog.read() as tx:
        if registry.catalog.is_local:
            plan = "EXPLAIN QUERY PLAN "
        else:
            tx.execute(text("SET LOCAL enable_seqscan = off"))
            tx.execute(text("SET LOCAL enable_sort = off"))
            plan = "EXPLAIN "
        query = index_updates.next_versions(1, 2).compile(
            tx.get_bind(), compile_kwargs={"literal_binds": True}
        )
        lines = " ".join(row[-1] for row in tx.execute(text(f"{plan}{query}")))
    assert "adapter_id" in lines
    assert "TEMP B-TREE" not in lines
    assert "Sort" not in lines
    registry.close()


@pytest.mark.usefixtures("one_row_at_once")
def test_an_interrupted_update_is_completed_after_the_next_edit(catalog: str, tmp_path: Path) -> None:
    """The registry has no server. A version that is pushed in the meantime has the new terms."""
    registry = with_versions(catalog, tmp_path, 3)
    registry.catalog.completes_index_updates = False
    registry.adapters.edit(TONE, AdapterEdit(tags=("draft",)))
    index_updates.complete(registry.catalog, steps(1))
    push(registry, open_dir(tiny_lora(tmp_path / "late", seed=99)), str(TONE))
    registry.adapters.edit(TONE, AdapterEdit(tags=("final",)))
    assert [one.number for one in registry.versions.search("tag:final").items] == [4, 3, 2, 1]
    assert registry.versions.search("tag:draft").items == ()
    registry.catalog.completes_index_updates = True
    registry.adapters.edit(TONE, AdapterEdit(description="Complete"))
    assert outdated(registry) == set()
    assert verify(registry.catalog, registry.blobs) == ()
    registry.close()


@pytest.mark.usefixtures("one_row_at_once")
def test_an_adapter_is_deleted_during_its_update(catalog: str, tmp_path: Path) -> None:
    registry = with_versions(catalog, tmp_path, 2)
    registry.catalog.completes_index_updates = False
    registry.adapters.edit(TONE, AdapterEdit(tags=("draft",)))
    registry.adapters.delete(TONE)
    assert outdated(registry) == set()
    index_updates.complete(registry.catalog)
    assert verify(registry.catalog, registry.blobs) == ()
    registry.close()


def with_versions(catalog: str, folder: Path, count: int) -> LocalRegistry:
    """A registry with this many versions of one adapter."""
    registry = LocalRegistry(RegistryContext(Catalog(catalog), MemoryBlobs()))
    for number in range(count):
        push(registry, open_dir(tiny_lora(folder / str(number), seed=number)), str(TONE))
    return registry


def postings(registry: LocalRegistry) -> set[tuple[int, int]]:
    with registry.catalog.read() as tx:
        return {
            (term, version) for term, version in tx.exec(select(PostingRow.term_id, PostingRow.version_id))
        }
