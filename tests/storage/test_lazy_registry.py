"""A lazily opened registry returns the same as the whole registry, and reads only the current schema."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Invalid, NotFound
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange
from adaptry.storage.connect import connect, open_in_memory, open_local
from adaptry.storage.lazy_registry import LazyRegistry, open_lazily
from adaptry.storage.local import LocalRegistry
from adaptry.testing.samples import tiny_lora

TONE = AdapterName.parse("acme/tone")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A registry with versions in two states, with an alias and a metric, and adapters in three namespaces,
    one of them deleted.
    """
    folder = tmp_path / "data"
    with open_local(folder) as registry:
        options = PushOptions(alias="prod", metrics={"accuracy": 0.5, "loss": 1})
        push(registry, open_dir(tiny_lora(tmp_path / "one")), TONE, options=options)
        second = push(registry, open_dir(tiny_lora(tmp_path / "two", seed=2)), TONE).version
        push(registry, open_dir(tiny_lora(tmp_path / "three", seed=3)), TONE)
        change = StateChange(state="deprecated", reason="there is a better one", successor="acme/tone@1")
        registry.versions.set_state(TONE, second.digest, change, 0)
        edit = AdapterEdit(description="as written", tags=("a", "b"), visibility="public")
        for name in ("acme/a", "acme/zeta", "acme2/tone", "beta/tone", "beta/gone"):
            registry.adapters.create(AdapterName.parse(name), edit)
        registry.adapters.delete(AdapterName.parse("beta/gone"))
    return folder


@pytest.fixture
def lazy(folder: Path) -> Iterator[LazyRegistry]:
    with connect(str(folder), is_lazy=True) as registry:
        assert isinstance(registry, LazyRegistry)
        yield registry


@pytest.fixture
def whole(folder: Path) -> Iterator[Registry]:
    with connect(str(folder)) as registry:
        assert isinstance(registry, LocalRegistry)
        yield registry


def listings(registry: Registry, limit: int) -> Iterator[object]:
    """Every page of adapters by name, and of versions from the newest."""
    for namespace in (None, "acme", "beta", "none"):
        cursor: str | None = None
        while True:
            adapters = registry.adapters.list(namespace, cursor, limit)
            yield adapters
            if (cursor := adapters.next) is None:
                break
    while True:
        versions = registry.versions.list(TONE, cursor, limit)
        yield versions
        if (cursor := versions.next) is None:
            return


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_listings_equal_those_of_the_full_registry(lazy: Registry, whole: Registry, limit: int) -> None:
    assert list(listings(lazy, limit)) == list(listings(whole, limit))
    assert "whole" not in vars(lazy)


@pytest.mark.parametrize("namespace", [None, "acme", "none"])
def test_plain_listings_have_the_values_of_the_records(
    lazy: LazyRegistry, whole: Registry, namespace: str | None
) -> None:
    cursor: str | None = None
    while True:
        plain, page = lazy.try_list(namespace, cursor, 2), whole.adapters.list(namespace, cursor, 2)
        assert plain is not None
        for one, record in zip(plain.items, page.items, strict=True):
            assert all(
                value == getattr(record, name) for name, value in asdict(one).items() if name != "name"
            )
            assert one.name == record.name
        assert plain.next == page.next
        if (cursor := plain.next) is None:
            return


def test_other_methods_equal_those_of_the_full_registry(lazy: Registry, whole: Registry) -> None:
    assert lazy.adapters.list(sort="updated") == whole.adapters.list(sort="updated")
    assert lazy.versions.list(TONE, reverse=True) == whole.versions.list(TONE, reverse=True)
    assert lazy.version("acme/tone@prod") == whole.version("acme/tone@prod")
    assert lazy.aliases.list(TONE) == whole.aliases.list(TONE)


def test_errors_equal_those_of_the_full_registry(lazy: Registry) -> None:
    with pytest.raises(NotFound, match="acme/none"):
        lazy.versions.list(AdapterName.parse("acme/none"))
    with pytest.raises(Invalid, match="cursor"):
        lazy.adapters.list("acme", lazy.adapters.list("beta", limit=1).next or "beta")
    with pytest.raises(Invalid, match="limit must be from 1"):
        lazy.adapters.list(limit=0)
    with pytest.raises(AttributeError, match="no role"):
        lazy.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_a_listing_shows_what_another_connection_committed(lazy: Registry, whole: Registry) -> None:
    before = [one.name for one in lazy.adapters.list("beta").items]

    new = AdapterName.parse("beta/new")
    whole.adapters.create(new, AdapterEdit())

    assert [one.name for one in lazy.adapters.list("beta").items] == [new, *before]


def test_another_schema_is_opened_as_a_whole(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0029'")
    with open_in_memory() as whole:
        assert open_lazily(folder / "catalog.sqlite", lambda: whole) is whole
