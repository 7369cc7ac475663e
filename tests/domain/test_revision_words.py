"""Words for revisions: any text can be parsed, and a valid branch or tag name has no other meaning."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from adaptry.core.errors import InvalidRef
from adaptry.core.hub_revision import (
    HubRevisionName,
    is_commit_id,
    parse_branch,
    parse_hub_revision,
    parse_tag,
)

LIKELY = st.from_regex(r"[a-fvV0-9_][a-fvV0-9._+-]{0,8}[a-fvV0-9_](?:/[a-f0-9]{1,3})?", fullmatch=True)
NAMES = LIKELY | st.text("abcdef0123456789vV./_-+ é", max_size=12) | st.text(max_size=12)


@given(st.text())
def test_every_text_parses_as_a_revision(text: str) -> None:
    assert parse_hub_revision(text).name in text


@given(NAMES)
def test_only_unambiguous_names_can_be_created(text: str) -> None:
    try:
        name = parse_branch(text)
    except InvalidRef:
        assume(False)
    assert parse_tag(name) == name
    assert parse_hub_revision(name) == HubRevisionName(name)
    assert parse_hub_revision(f"refs/heads/{name}") == HubRevisionName(name, "branch")
    assert parse_hub_revision(f"refs/tags/{name}") == HubRevisionName(name, "tag")


def test_a_word_of_digits_is_read_as_a_version_before_an_id() -> None:
    assert parse_hub_revision("1234567") == HubRevisionName("1234567", number=1234567, prefix="1234567")
    assert parse_hub_revision("v12") == HubRevisionName("v12", number=12)
    assert parse_hub_revision("refs/tags/v12") == HubRevisionName("v12", "tag", number=12)
    assert parse_hub_revision("refs/tags/12") == HubRevisionName("12", "tag")


def test_an_id_is_7_to_40_hex_digits() -> None:
    assert [length for length in range(70) if is_commit_id("a" * length)] == list(range(7, 41))
    assert not is_commit_id("main")
