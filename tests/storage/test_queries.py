"""Every query finds what a reference search of all versions finds, in every order, for every reader, with
every search strategy, on SQLite and PostgreSQL.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.errors import Invalid, InvalidQuery
from adaptry.core.identity import LOCAL, Identity
from adaptry.core.query import parse
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import Page, VersionInfo
from adaptry.registry.sort_keys import SEARCH_SORT_KEYS
from adaptry.storage.catalog import search
from adaptry.storage.local import LocalRegistry
from adaptry.testing.postgres import PostgresServer

from .queries_model import Clock, Known, everything, filled, in_order, matches

TERMS = (
    *("narrator", "narr*", "dubbing", '"OR"', "name:tone", "name:acme/*", "namespace:beta", "namespace:a*"),
    *("module:q_proj", "module:v*", "method:lora", "method:ia3", "alias:prod", "alias:*x", "alias:c*"),
    *("tag:speech", "licence:mit", "license:apache-2.0", "state:yanked", "state:*", "by:local", "trait:dora"),
    *("finding:base_unknown", "finding:b*", "finding:weights_nan", "loaded:gpu-1", "loaded:vllm", "loaded:*"),
    *("rank<=8", "rank=4", "rank!=4", "rank>100", "alpha>=16", "alpha<20.5", "size>1k", "version>1"),
    *("downloads>=1", "findings>0", "findings=0", "parameters>0"),
    *("created>=2026-01-10", "created<2026-01-16", "created:2026-01-16", "created!=2026-01", "created>=7d"),
    *("updated>=2026-01-20", "updated<2w", "metric.accuracy>=0.5", "max:metric.accuracy>=0.7"),
    *("min:metric.accuracy<0.2", "metric.none>0", "metric.loss=1", "eval.gsm8k.exact_match>=0.5"),
    *("eval.gsm8k.exact_match,strict<0.5", "eval.gsm8k.exact_match,loose!=0.5", "eval.arc.easy.acc<1"),
    *("has:metric", "has:metric.loss", "has:eval", "has:eval.gsm8k", "has:eval.gsm8k.exact_match"),
    *("has:eval.arc.easy", "has:alias", "has:tag", "has:licence", "has:finding", "has:rank", "has:alpha"),
    *("has:parent", "has:trait"),
)
SORTS = (
    *(key for key in SEARCH_SORT_KEYS if key.islower()),
    *("metric.accuracy", "metric.loss", "eval.gsm8k.exact_match", "eval.gsm8k.exact_match,strict"),
)
READER = Identity("ann", (Grant("viewer", Resource.parse("acme/tone")),), principal=1)
MEMBER = Identity("bob", (Grant("viewer", Resource.parse("beta")),), principal=2)


def _combined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.lists(parts, min_size=2, max_size=3)
    return st.one_of(
        several.map(lambda some: f"({' '.join(some)})"),
        several.map(lambda some: f"({' OR '.join(some)})"),
        several.map(lambda some: f"({some[0]} AND NOT {some[1]})"),
        parts.map(lambda part: f"-({part})"),
        parts.map(lambda part: part if part.startswith("-") else f"-{part}"),
    )


QUERIES = st.recursive(st.sampled_from(TERMS), _combined, max_leaves=5)
TOP = st.lists(QUERIES, max_size=3).flatmap(
    lambda some: st.sampled_from((" ", " OR ")).map(lambda between: between.join(some))
)

Library = tuple[LocalRegistry, Clock, list[Known]]


def _library(catalog: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    registry, clock = filled(catalog, tmp_path_factory.mktemp("loras"))
    yield registry, clock, everything(registry)
    registry.close()


@pytest.fixture(scope="module")
def sqlite_library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    yield from _library(f"sqlite:///{tmp_path_factory.mktemp('catalog')}/c.sqlite", tmp_path_factory)


@pytest.fixture(scope="module")
def postgres_library(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    yield from _library(postgres.database(), tmp_path_factory)


def check(
    library: Library,
    query: str,
    sort: str,
    reverse: bool,
    who: Identity,
    selective: int,
    tests: int,
    page: int,
) -> None:
    registry, clock, versions = library
    expected = in_order([one for one in versions if matches(parse(query, clock.now), one)], sort, reverse)
    readable = [
        one.detail.version.label for one in expected if who.may_read(one.adapter.name, one.adapter.visibility)
    ]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(search, "SELECTIVE", selective)
        patched.setattr(search, "MAX_TESTS", tests)
        found = list(iter_items(lambda cursor: page_of(registry, who, query, cursor, page, sort, reverse)))
    assert [one.label for one in found] == readable


def page_of(
    registry: LocalRegistry,
    who: Identity,
    query: str,
    cursor: str | None,
    limit: int,
    sort: str,
    reverse: bool,
) -> Page[VersionInfo]:
    """A page, which must be equal as records and as JSON."""
    versions = registry.on_behalf_of(who).versions
    found = versions.search(query, cursor, limit, sort=sort, reverse=reverse)
    encoded = versions.search_json(query, cursor, limit, sort=sort, reverse=reverse)
    assert encoded == found.model_dump_json(by_alias=True).encode()
    return found


SEARCHES = given(
    query=TOP,
    sort=st.sampled_from(SORTS),
    reverse=st.booleans(),
    who=st.sampled_from((LOCAL, READER, MEMBER)),
    selective=st.sampled_from((1, 3, 2000)),
    tests=st.sampled_from((8, 40_000)),
    page=st.sampled_from((1, 2, 50)),
)
SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SEARCHES
@SETTINGS
def test_any_query_finds_the_same_versions_as_a_full_scan(
    sqlite_library: Library,
    query: str,
    sort: str,
    reverse: bool,
    who: Identity,
    selective: int,
    tests: int,
    page: int,
) -> None:
    check(sqlite_library, query, sort, reverse, who, selective, tests, page)


@SEARCHES
@SETTINGS
def test_any_query_finds_the_same_on_postgresql(
    postgres_library: Library,
    query: str,
    sort: str,
    reverse: bool,
    who: Identity,
    selective: int,
    tests: int,
    page: int,
) -> None:
    check(postgres_library, query, sort, reverse, who, selective, tests, page)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_every_term_and_its_negation_find_the_same_as_a_full_scan(
    kind: str, request: pytest.FixtureRequest
) -> None:
    library: Library = request.getfixturevalue(f"{kind}_library")
    for number, term in enumerate(TERMS):
        for query in (term, f"-{term}"):
            check(
                library,
                query,
                SORTS[number % len(SORTS)],
                bool(number % 2),
                LOCAL,
                1 + number % 9,
                40_000,
                50,
            )


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_forged_cursor_of_a_sorted_search_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    from adaptry.storage.catalog import cursors

    registry: LocalRegistry = request.getfixturevalue(f"{kind}_library")[0]
    for sort in SORTS:
        if sort == "newest":
            continue
        for place in (
            *("x", "-1", "[]", "[1]", "{}", "[1,2,3,4,5,6]", '[true,1,"",0,null]', '[1,"x","",0,null]'),
            *('[1,1e999,"",0,null]', '[99999999999,1,"",0,null]', '[1,1,"no name",0,null]', "[" * 200),
            *('[1,1,"",-1,null]', '[1,"9999-12-31T23:59:59-14:00","a/b",0,null]', '[1,1,"",0,"soon"]'),
        ):
            with pytest.raises(InvalidQuery, match="cursor"):
                registry.versions.search("", cursors.encode(place, f"search  by {sort} 0"), sort=sort)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_cursor_reveals_nothing_about_hidden_adapters(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a page ends before anything was found, the next one continues from a version that was not tested."""
    from adaptry.storage.catalog import cursors

    registry: LocalRegistry = request.getfixturevalue(f"{kind}_library")[0]
    reader = registry.on_behalf_of(READER)
    monkeypatch.setattr(search, "SELECTIVE", 1)
    monkeypatch.setattr(search, "MAX_TESTS", 4)
    query, about = "-(rank>=0 OR -rank>=0)", "search -(rank>=0 OR -rank>=0) by size 0"
    told = cursors.decode(registry.versions.search(query, None, 1, sort="size").next or "", about)
    assert json.loads(told)[1] > 0
    sealed = cursors.decode(reader.versions.search(query, None, 1, sort="size").next or "", about)
    assert re.fullmatch(r"~[\w=-]+", sealed)
    assert str(json.loads(told)[1]).encode() not in base64.urlsafe_b64decode(sealed[1:])
    assert reader.versions.search(query, cursors.encode(sealed, about), 1, sort="size").items == ()
    for forged in (told, f"~{sealed[2:]}", "~", "~~", "~\xe9"):
        with pytest.raises(InvalidQuery, match="cursor"):
            reader.versions.search(query, cursors.encode(forged, about), 1, sort="size")
    with pytest.raises(InvalidQuery, match="cursor"):
        reader.versions.search(query, cursors.encode(sealed, f"{about[:-1]}1"), 1, sort="size", reverse=True)


def test_a_prefix_may_end_with_the_last_unicode_character(sqlite_library: Library) -> None:
    registry = sqlite_library[0]
    for prefix in ("\U0010ffff", "a\U0010ffff", "\ud7ff"):
        for field in ("tag", "loaded"):
            assert registry.versions.search(f"{field}:{prefix}*", None, 1).items == ()


def test_a_span_counts_from_the_first_page(sqlite_library: Library) -> None:
    registry, clock, _ = sqlite_library
    began = clock.now
    try:
        first = registry.versions.search("created>=8d state:*", None, 1)
        clock.now = began.replace(year=began.year + 1)
        second = registry.versions.search("created>=8d state:*", first.next, 50)
    finally:
        clock.now = began
    assert len(first.items) + len(second.items) == 3


def test_an_unknown_order_names_the_nearest(sqlite_library: Library) -> None:
    with pytest.raises(Invalid, match="did you mean updated"):
        sqlite_library[0].versions.search("", sort="udpated")
    with pytest.raises(Invalid, match="TASK"):
        sqlite_library[0].versions.search("", sort="eval.gsm8k")


@pytest.mark.parametrize("text", ["fits:vllm", '"fits":vllm', 'fits":"vllm', "rank=4 -fits:vllm"])
def test_a_search_by_engine_is_known_to_read_files_however_it_is_written(text: str) -> None:
    """A server answers searches that read only rows from memory, until a row changes."""
    assert parse(text).reads_files
    assert not parse(text.replace("fits", "tag")).reads_files
