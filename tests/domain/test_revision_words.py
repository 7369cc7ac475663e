"""Words for revisions: every text is one, and what may be made as a branch or tag means nothing else."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from adaptry.core.errors import InvalidRef
from adaptry.core.hub_revision import Word, is_id, parse_branch, parse_tag, parse_word

NAMES = st.text("abcdef0123456789vV./_-+ é", max_size=12) | st.text(max_size=12)


@given(st.text())
def test_every_text_is_a_word(text: str) -> None:
    assert parse_word(text).name in text


@given(NAMES)
def test_what_may_be_made_is_a_name_and_nothing_else(text: str) -> None:
    try:
        name = parse_branch(text)
    except InvalidRef:
        assume(False)
    assert parse_tag(name) == name
    assert parse_word(name) == Word(name)
    assert parse_word(f"refs/heads/{name}") == Word(name, "branch")
    assert parse_word(f"refs/tags/{name}") == Word(name, "tag")


def test_a_word_of_digits_is_a_version_before_it_is_an_id() -> None:
    assert parse_word("1234567") == Word("1234567", number=1234567, prefix="1234567")
    assert parse_word("v12") == Word("v12", number=12)
    assert parse_word("refs/tags/v12") == Word("v12", "tag", number=12)
    assert parse_word("refs/tags/12") == Word("12", "tag")


def test_an_id_is_7_to_40_hex_digits() -> None:
    assert [length for length in range(70) if is_id("a" * length)] == list(range(7, 41))
    assert not is_id("main")
