"""Untrusted YAML: one unambiguous value, within limits, with the same result in this process and
in a child.
"""

from __future__ import annotations

import pytest

from adaptry.core.errors import Invalid
from adaptry.core.plain_yaml import SHORT, loads_in_process
from adaptry.core.processes import yaml_reader

_LONG = "".join(f"k{number}: [1, 2.5, yes, 2026-11-25, .nan, 'ü']\n" for number in range(400))


def test_a_long_text_parses_the_same_in_a_child() -> None:
    assert len(_LONG) > SHORT
    read = yaml_reader.loads(_LONG, "the head")
    assert read == loads_in_process(_LONG, "the head")
    assert read["k399"] == [1, 2.5, True, "2026-11-25", "nan", "ü"]


@pytest.mark.parametrize("padding", ["", "# a comment\n" * 1000], ids=["short", "long"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "alias"),
        ("a: " + "[" * 17 + "]" * 17, "nested deeper than 16"),
        ("? " * 1000, "nested deeper than 16"),
        ("a: [", "is not YAML"),
        ("a: !!python/object:os.system x", "is not YAML"),
        ("{[1]: 2}", "is not YAML"),
    ],
)
def test_hostile_yaml_is_refused(text: str, reason: str, padding: str) -> None:
    with pytest.raises(Invalid, match=reason) as caught:
        yaml_reader.loads(padding + text, "the head")
    assert caught.value.message.startswith("the head")


def test_values_are_counted_before_they_are_built() -> None:
    with pytest.raises(Invalid, match="more than 20,000 values"):
        yaml_reader.loads("[" + "[]," * 20_001 + "]", "the head")
