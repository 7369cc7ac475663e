"""Prepared reads return what other reads return, and are as current."""

from __future__ import annotations

import _sqlite3
import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import NotFound, Unavailable
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.records import PushOptions, StateChange
from adaptry.storage.catalog import adapters, aliases, commits, git_refs, prepared
from adaptry.storage.catalog.database import Catalog, Reads
from adaptry.storage.catalog.version_info import info
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.samples import tiny_lora

TONE = AdapterName.parse("acme/tone")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    """Two versions: one with a metric and an alias, one that was deprecated."""
    registry = open_local(tmp_path / "data")
    options = PushOptions(alias="prod", metrics={"accuracy": 0.5, "loss": 1})
    push(registry, open_dir(tiny_lora(tmp_path / "one")), TONE, options=options)
    second = push(registry, open_dir(tiny_lora(tmp_path / "two", seed=2)), TONE).version
    change = StateChange(state="deprecated", reason="there is a better one", successor="acme/tone@1")
    registry.versions.set_state(TONE, second.digest, change, 0)
    yield registry
    registry.close()


def everything(registry: LocalRegistry, tx: Reads) -> list[object]:
    """The results of all reads by prepared statements, in one transaction."""
    tone = adapters.find(tx, TONE)
    assert tone is not None
    newest = registry.versions.get(Ref.parse("acme/tone@2")).digest
    refs = ("acme/tone", "acme/tone@1", "acme/tone@2", "acme/tone@prod", f"acme/tone@{newest}")
    return [
        *(info(tx, registry.context.resolve(tx, Ref.parse(ref))) for ref in refs),
        adapters.info(tx, tone),
        aliases.find(tx, tone, "prod"),
        aliases.find(tx, tone, "staging"),
        git_refs.find(tx, tone, "main"),
        commits.find_by_ref(tx, tone, "main"),
        commits.find_by_digest(tx, tone, newest.hex[:12]),
        commits.tree(tx, tone, newest),
    ]


def test_a_prepared_read_returns_what_every_other_read_returns(registry: LocalRegistry) -> None:
    with registry.catalog.read() as tx:
        expected = everything(registry, tx)
    with registry.catalog.read_prepared() as reads:
        assert everything(registry, reads) == expected
    assert registry.catalog.has_prepared


def test_prepared_reads_see_one_moment_and_the_next_ones_what_another_connection_committed(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    other = open_local(tmp_path / "data")
    prod = Ref.parse("acme/tone@prod")
    second = registry.versions.get(Ref.parse("acme/tone@2")).digest

    def number(reads: Reads) -> int:
        return info(reads, registry.context.resolve(reads, prod)).number

    with registry.catalog.read_prepared() as reads:
        before = number(reads)
        other.aliases.move(TONE, "prod", second, 1)
        during = number(reads)
    with registry.catalog.read_prepared() as reads:
        assert (before, during, number(reads)) == (1, 1, 2)
    other.close()


def test_an_error_ends_a_prepared_read_and_the_next_one_works(registry: LocalRegistry) -> None:
    for _ in range(2):
        with pytest.raises(NotFound, match="no adapter acme/none"):
            registry.versions.get(Ref.parse("acme/none@prod"))
    assert registry.versions.get(Ref.parse("acme/tone@prod")).number == 1


def test_a_database_that_cannot_be_read_is_unavailable_to_prepared_reads(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    catalog = Catalog.open(path)
    path.rename(tmp_path / "elsewhere.sqlite")
    path.mkdir()
    with pytest.raises(Unavailable, match="cannot use the database"), catalog.read_prepared():
        pass
    catalog.close()


def test_idle_connections_free_the_pages_that_they_keep(
    registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "_IDLE", -1.0)
    with registry.catalog.read_prepared() as reads, registry.catalog.read_prepared(is_search=True) as search:
        expected = everything(registry, reads)
        assert everything(registry, search) == expected
    kept = sqlite_memory()
    registry.catalog.shrink()
    assert sqlite_memory() < kept - 100_000
    with registry.catalog.read_prepared() as reads:
        assert everything(registry, reads) == expected
    registry.versions.count_download(Ref.parse("acme/tone@1"))


def sqlite_memory() -> int:
    """Bytes that SQLite holds in this process."""
    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_memory_used.restype = ctypes.c_int64
    return int(library.sqlite3_memory_used())
