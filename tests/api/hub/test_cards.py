"""Which parts of a model card are read, and which are ignored."""

from __future__ import annotations

import pytest

from adaptry.core.errors import Invalid
from adaptry_api.hub.card import read_card

CARD = b"""\xef\xbb\xbf---
base_model: org/base
license: apache-2.0
date: 2026-11-25
tags: [lora, warm, "base_model:adapter:org/base", "has space", 7]
model-index:
- name: tone
  results:
  - dataset: {type: glue, name: GLUE}
    metrics: [{type: accuracy, value: 0.5}, {type: loss, value: .nan}]
  - dataset: {type: mmlu, name: MMLU}
    metrics: [{type: f1, value: 1}, {type: accuracy, value: 0.75}, {type: verdict, value: good}]
---
# Tone
"""


def test_a_cards_head_becomes_tags_a_base_and_metrics() -> None:
    card = read_card(CARD)
    assert card.base_models == ("org/base",)
    assert card.tags == ("lora", "warm", "license:apache-2.0")
    assert card.metrics == {"glue/accuracy": 0.5, "mmlu/accuracy": 0.75, "f1": 1.0}
    assert card.data["date"] == "2026-11-25"


@pytest.mark.parametrize(
    "text", ["", "# Tone", "---\n---\n", "---\n# only a comment\n---\n", "text\n---\na: 1\n---\n"]
)
def test_a_readme_without_a_head_is_an_empty_card(text: str) -> None:
    assert read_card(text.encode()).data == {}


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ("a: &x [1]\nb: [*x, *x]", "alias"),
        ("a: " + "[" * 40 + "]" * 40, "nested"),
        ("- a\n- b", "mapping"),
        ("a: [1", "not YAML"),
        ("a: !!python/object/apply:os.system [id]", "not YAML"),
        ("a: " + "x" * 70_000, "the limit is"),
        ("? [a]\n: 1", "not YAML"),
    ],
)
def test_a_card_head_with_other_than_plain_data_is_refused_with_the_reason(head: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        read_card(f"---\n{head}\n---\n".encode())


def test_numbers_without_a_json_form_become_texts() -> None:
    card = read_card(b"---\na: .inf\nb: 0x" + b"f" * 60 + b"\nc: !!set {x}\n---\n")
    assert card.data == {"a": "inf", "b": "a number too large", "c": ["x"]}
