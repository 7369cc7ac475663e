"""The pages of bases: what they show of a base, its copies and its adapters, and to whom."""

from __future__ import annotations

from tests.pages.browser import Browser
from tests.pages.sample_registry import BASE
from tests.pages.statements import statements_of

from adaptry_api.testing import Server

PAGE = f"/-/base?key={BASE}"


def test_a_base_is_found_by_name_id_and_the_beginning_of_its_id(team: Server) -> None:
    browser = Browser(team)
    base = browser.get(f"{PAGE}&format=json").json["base"]
    assert base["names"] == [BASE]
    for key in (base["id"], base["id"].removeprefix("sha256:")[:12]):
        assert browser.get(f"/-/base?format=json&key={key}").json["base"] == base
    assert browser.get("/-/base?key=org/none").status == 404
    assert browser.get("/-/base?key=").status == 400


def test_the_page_lists_the_versions_on_the_base_by_adapter(team: Server) -> None:
    browser = Browser(team)
    text = browser.get(PAGE).body.decode()
    tree = text[text.index('id="adapters-title"') : text.index('id="copies-title"')]
    names = [name for name in ("acme/sql-writer", "acme/support-sql", "acme/support-tone") if name in tree]
    assert names == sorted(names, key=tree.index)
    assert len(names) == 3
    assert "research/legal-summaries" not in tree  # it is on another base
    rows = browser.get(f"{PAGE}&format=csv").body.decode().splitlines()
    assert len(rows) == 1 + 8


def test_a_base_with_the_same_shapes_is_a_copy_with_its_match_level(team: Server) -> None:
    browser = Browser(team)
    (match,) = browser.get(f"/-/base/copies?key={BASE}&format=json").json["matches"]
    assert match["base"]["names"] == ["org/small-llama-tuned"]
    assert match["match"]["level"] == "same_shapes"
    assert "same shapes, other weights" in browser.get(f"/-/base/copies?key={BASE}").body.decode()


def test_a_reader_of_another_namespace_sees_no_private_base(team: Server) -> None:
    stranger = Browser(team, team.token("sara", "viewer", ("research",)))
    assert stranger.get(PAGE).status == 404
    assert stranger.get(f"/-/base/copies?key={BASE}").status == 404
    assert stranger.get("/-/bases?format=json").json["bases"]["items"] == []
    assert "adaptry base add" in stranger.get("/-/bases").body.decode()


def test_the_list_of_bases_is_csv_too(team: Server) -> None:
    rows = Browser(team).get("/-/bases?format=csv").body.decode().splitlines()
    assert rows[0].startswith("names,id,model_type")
    assert any(row.startswith(f"{BASE},") for row in rows)


def test_pages_of_bases_read_the_database_a_bounded_number_of_times(team: Server) -> None:
    browser = Browser(team)
    for address, most in ((PAGE, 30), ("/-/bases", 12), (f"/-/base/copies?key={BASE}", 20)):
        statements = statements_of(browser, address)
        assert 0 < len(statements) <= most, "\n".join(statements)
