"""`base add --visibility` and `base edit`: visibility of bases, and names that an adapter already has."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("out", "base")


def test_a_base_is_private_until_it_is_edited_and_shows_its_visibility(run, answer) -> None:
    added = answer("base", "add", "./base", "--name", "org/tiny")
    assert added["visibility"] == "private"
    assert run("base", "edit", "org/tiny", "--visibility", "internal").stdout.strip() == added["id"]
    assert "internal" in run("base", "ls").stdout
    assert "visibility    internal" in run("base", "show", "org/tiny").stdout
    again = answer("base", "add", "./base", "--name", "org/again", "--visibility", "public")
    assert (again["id"], again["visibility"]) == (added["id"], "public")


def test_edit_without_a_change_or_a_base_has_a_remedy(run) -> None:
    assert "pass --visibility" in run("base", "edit", "org/tiny", code=2).stderr
    assert "adaptry base ls" in run("base", "edit", "org/tiny", "--visibility", "public", code=3).stderr


def test_a_stored_base_under_an_adapters_name_is_refused_and_the_remedy_works(run) -> None:
    run("create", "org/tiny")
    refused = run("base", "add", "./base", "--name", "org/tiny", "--store", code=4).stderr
    assert "adaptry delete org/tiny" in refused
    run("delete", "org/tiny", "--yes")
    run("base", "add", "./base", "--name", "org/tiny", "--store")
    assert "is the name of a base" in run("create", "org/tiny", code=4).stderr
    assert "is the name of a base" in run("push", "./out", "org/tiny", code=4).stderr
