"""Names and refs as users write them, and the messages about names that do not parse."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, InvalidRef
from adaptry.core.refs import (
    AdapterName,
    ByDigest,
    Label,
    Latest,
    Number,
    Ref,
    is_folder,
    parse_alias,
    parse_namespace,
    split_weight,
)
from adaptry.core.stack_ref import StackRef


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("acme/tone", Latest()),
        ("acme/tone@latest", Latest()),
        ("acme/tone@3", Number(3)),
        ("acme/tone@v3", Number(3)),
        ("acme/tone@prod", Label("prod")),
        ("acme/tone@sha256:0123456789ab", ByDigest("0123456789ab")),
        ("acme/tone@0123456", ByDigest("0123456")),
    ],
)
def test_a_ref_selects_a_revision(text: str, selector: object) -> None:
    assert Ref.parse(text) == Ref(AdapterName("acme", "tone"), selector)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["", "tone", "acme/", "acme/tone/x", "acme/../x", "acme/to ne", "acme/-x", "acme/x.git",
     "a--b/x", "acme/tone@", "acme/tone@sha256:12", "acme/tone@a/b", "acme/to\u202ene", "acme/" + "x" * 97,
     "acme/tone@0"],
)  # fmt: skip
def test_a_ref_that_does_not_parse_shows_the_grammar(text: str) -> None:
    with pytest.raises(InvalidRef, match=r"namespace/name \(its latest version\)"):
        Ref.parse(text)


@pytest.mark.parametrize("text", ["/tone", "../etc", "./acme/tone"])
def test_a_path_is_refused_as_one(text: str) -> None:
    with pytest.raises(InvalidRef, match="is a path, not the name of an adapter, such as acme/tone"):
        Ref.parse(text)


@pytest.mark.parametrize("namespace", ["api", "v1", "models", "API"])
def test_namespaces_that_the_hub_protocol_needs_are_reserved(namespace: str) -> None:
    with pytest.raises(InvalidRef, match="reserved"):
        AdapterName.parse(f"{namespace}/tone")


@pytest.mark.parametrize("text", ["", "bad name", "acme/tone", "acme*", "a--b", "nul", "x" * 97])
def test_a_namespace_that_does_not_parse_is_not_called_an_adapter(text: str) -> None:
    assert parse_namespace("acme") == "acme"
    with pytest.raises(InvalidRef, match="not a namespace: ") as refused:
        parse_namespace(text)
    assert "adapter" not in refused.value.message and "@" not in refused.value.message


@pytest.mark.parametrize("text", ["acme/tone.merged", "acme/tone.Merged", "acme/tone.merged@prod"])
def test_no_adapter_has_the_name_of_a_merged_model(text: str) -> None:
    with pytest.raises(InvalidRef, match=r"the ending \.merged is reserved for merged models"):
        Ref.parse(text)


@pytest.mark.parametrize("alias", ["latest", "main", "7", "v7", "abcdef0", "refs", "-x", "a/b", ""])
def test_an_alias_cannot_be_mistaken_for_something_else(alias: str) -> None:
    with pytest.raises(InvalidRef):
        parse_alias(alias)


@given(
    st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}/[A-Za-z][A-Za-z0-9_]{0,20}(@[1-9][0-9]{0,3})?", fullmatch=True)
)
def test_a_valid_ref_is_written_as_it_was_read(text: str) -> None:
    try:
        ref = Ref.parse(text)
    except InvalidRef as error:
        assert "reserved" in error.message
    else:
        assert Ref.parse(str(ref)) == ref


@given(st.text())
def test_any_text_is_a_ref_or_an_invalid_ref(text: str) -> None:
    with contextlib.suppress(InvalidRef):
        Ref.parse(text)


def test_only_a_leading_dot_slash_or_tilde_denotes_a_folder() -> None:
    assert all(map(is_folder, ("./out", "../out", "/srv/out", "~/out", ".")))
    assert not any(map(is_folder, ("out", "acme/tone", "acme/tone@prod")))


def test_a_weight_follows_an_equals_sign() -> None:
    assert split_weight("acme/tone@prod=0.7") == ("acme/tone@prod", 0.7)
    assert split_weight("acme/tone") == ("acme/tone", 1.0)
    with pytest.raises(InvalidRef, match="finite"):
        split_weight("acme/tone=inf")


@pytest.mark.parametrize("weight", ["١", "1_0", "０.５", "0x1", "1e3", "nan", ""])
def test_a_weight_in_a_name_is_written_in_one_way(weight: str) -> None:
    with pytest.raises(InvalidRef, match="not a weight"):
        StackRef.parse(f"acme/tone@1={weight}")


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha512:" + "0" * 64, "sha256:" + "A" * 64, "sha256:" + "0" * 63]
)
def test_a_digest_is_sixty_four_lower_case_hex_digits(text: str) -> None:
    with pytest.raises(Invalid, match="sha256:<64"):
        Digest.parse(text)
