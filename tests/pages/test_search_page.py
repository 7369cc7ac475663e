"""Search in a browser: counts of many matches, and completion while typing."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.pages.browser import Browser

from adaptry.core.identity import LOCAL, Identity
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry_api.pages.facet_counts import FacetCounter, count_facets
from adaptry_api.pages.facets import completions
from adaptry_api.testing import Server

FILLED = Path(__file__).parents[2] / "bench" / "filled.py"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    """A registry with 1,200 versions, of which 240 have the tag `checked`."""
    url = f"sqlite:///{tmp_path_factory.mktemp('many') / 'catalog.db'}"
    runpy.run_path(str(FILLED))["fill"](url, 1_200)
    with LocalRegistry(RegistryContext(Catalog(url), MemoryBlobs())) as registry:
        yield registry


def test_facets_count_every_match_beyond_the_first_page(many: LocalRegistry) -> None:
    part = count_facets(many.versions, "")
    assert (part.examined, part.is_all) == (1_200, True)
    namespaces = next(facet for facet in part.facets if facet.field == "namespace")
    assert [one.count for one in namespaces.values] == [120] * 6
    for one in namespaces.values:
        assert count_facets(many.versions, one.q).examined == one.count


def test_a_count_stops_at_its_limit_and_is_marked_as_incomplete(many: LocalRegistry) -> None:
    part = count_facets(many.versions, "", maximum=450)
    assert (part.examined, part.is_all) == (450, False)


def test_a_slow_count_stops_and_returns_its_partial_result(many: LocalRegistry) -> None:
    ticks = iter(range(0, 1_000, 4))
    part = count_facets(many.versions, "", lambda: float(next(ticks)))
    assert 0 < part.examined < 1_200
    assert not part.is_all


def test_one_search_is_counted_at_a_time_and_others_get_the_newest_200(many: LocalRegistry) -> None:
    counter, inside = FacetCounter(), []

    class Watched:
        """The versions; another request counts the matches while the first result is read."""

        def search(self, q: str, cursor: str | None, limit: int) -> object:
            if not inside:
                inside.append(True)
                with ThreadPoolExecutor(1) as other:
                    inside.append(other.submit(counter.count, many.versions, LOCAL, "").result())
            return many.versions.search(q, cursor, limit)

    first = counter.count(Watched(), LOCAL, "tag:checked")  # type: ignore[arg-type]  # only searches
    second = inside[1]
    assert (first.examined, first.is_all) == (240, True)
    assert (second.examined, second.is_all) == (200, False)
    assert counter.count(many.versions, LOCAL, "").examined == 1_200  # and it is counted when it is free


def test_counts_are_kept_for_one_visitor_only_and_not_for_long(many: LocalRegistry) -> None:
    now = [100.0]
    counter = FacetCounter(lambda: now[0])
    first = counter.count(many.versions, LOCAL, "")
    assert counter.count(many.versions, LOCAL, "") is first
    assert counter.count(many.versions, Identity("somebody"), "") is not first
    now[0] += 21
    assert counter.count(many.versions, LOCAL, "") is not first


def test_fields_and_values_that_occur_are_offered(many: LocalRegistry) -> None:
    assert completions(many.versions, "na") == ["name:", "namespace:"]
    assert completions(many.versions, "tag:checked -meth") == ["tag:checked -method:"]
    assert completions(many.versions, "namespace:team-7 name:")[0].startswith(
        "namespace:team-7 name:team-7/adapter-"
    )
    assert completions(many.versions, "state:rev") == ["state:revoked"]
    assert completions(many.versions, "ran") == ["rank>="]
    assert "metric.accuracy>=" in completions(many.versions, "metric.")


@pytest.mark.parametrize(
    "typed", ["", " ", "tone ", 'base:"org', "colour:", "x" * 900, "nosuchfield:x colour:"]
)
def test_no_completion_is_offered_if_none_matches(many: LocalRegistry, typed: str) -> None:
    assert completions(many.versions, typed) == []


def test_facets_and_completions_cover_only_readable_versions(team: Server) -> None:
    root, stranger = Browser(team), Browser(team, team.token("sara", "viewer", ("research",)))
    assert root.get("/-/facets?format=json").json["examined"] > 1
    assert stranger.get("/-/facets?format=json").json["examined"] == 1
    assert "acme/sql-writer" in root.get("/-/complete?q=name:acme").body.decode()
    assert stranger.get("/-/complete?q=name:acme").json == {"queries": []}
    assert root.get("/-/facets?q=colour:red").status == 400
