"""Untrusted JSON: one unambiguous value or an error, in time linear in its size."""

from __future__ import annotations

import json

import pytest

from adaptry.core.errors import Invalid
from adaptry.core.strictjson import JsonLimits, loads

SIZE = 2 << 20
WIDE = JsonLimits(size=SIZE, nodes=SIZE)


def refused(data: bytes, limits: JsonLimits = WIDE) -> str:
    with pytest.raises(Invalid) as caught:
        loads(data, limits, "it")
    return caught.value.message


# Each would take hours if the time were quadratic: the test passes if it ends.
LONG = {
    "one key twice, at the end": b"{" + b",".join(b'"%06d":1' % n for n in range(150_000)) + b',"149999":1}',
    "every key twice": b"{" + b",".join(b'"%06d":1' % (n // 2) for n in range(150_000)) + b"}",
    "a string that is not closed": b'"' + b'\\"' * (SIZE // 2 - 1),
    "strings that are not closed, one after the other": b'"\\' * (SIZE // 2),
    "quotation marks": b'"' * SIZE,
    "commas": b"," * SIZE,
    "ends of lists": b"]" * SIZE,
    "a long number": b"[" + b"9" * (SIZE - 2) + b"]",
    "a long fraction": b"[0." + b"9" * (SIZE - 4) + b"]",
    "spaces": b" " * SIZE,
    "half characters": b"[" + b",".join([b'"\\ud83d\\ude00"'] * 100_000) + b',"\\ud83d"]',
}


@pytest.mark.parametrize("data", LONG.values(), ids=LONG)
def test_no_document_takes_time_beyond_its_size(data: bytes) -> None:
    assert len(data) <= SIZE
    assert refused(data).startswith("it ")


@pytest.mark.parametrize(
    "document",
    [
        [0] * 1000,
        [[]] * 1000,
        {"a": {"b": [0] * 1000}},
        [[[0] * 500], [[0] * 500]],
        {str(n): 0 for n in range(1000)},
        [{"a": [[0, 0], [0, 0]]}] * 150,
    ],
    ids=str,
)
def test_values_are_counted_at_any_depth(document: object) -> None:
    data = json.dumps(document).encode()
    assert "more than 900 values" in refused(data, JsonLimits(size=SIZE, nodes=900))
    assert loads(data, JsonLimits(size=SIZE, nodes=2500), "it") == document


def test_commas_and_brackets_inside_texts_are_no_values() -> None:
    document = {"a": ',[{"\\' * 1000, "b": "\\"}
    assert loads(json.dumps(document).encode(), JsonLimits(size=SIZE, depth=1, nodes=4), "it") == document


@pytest.mark.parametrize(
    "data",
    [
        b'"\\ud800"',
        b'["\\udc00"]',
        b'{"\\ud800": 1}',
        b'{"a": [["\\ud83d\\ud83d"]]}',
        b'["\\\\\\ud83d"]',
    ],
)
def test_a_lone_surrogate_is_refused_anywhere(data: bytes) -> None:
    assert "half a character" in refused(data)


@pytest.mark.parametrize("text", ["😀", "\\ud800", "\\\\ud800", "é", "\u0000"])
def test_complete_characters_are_read_in_any_escape_form(text: str) -> None:
    for is_ascii in (True, False):
        assert loads(json.dumps([text], ensure_ascii=is_ascii).encode(), WIDE, "it") == [text]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' twice"),
        (b"[NaN]", "contains NaN"),
        (b"[1e999]", "too large"),
        (b"[" * 17 + b"]" * 17, "deeper than 16"),
        (b"\xff", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"{} {}", "not JSON"),
        (b'{"a": "b', "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_an_ambiguous_document_is_refused(data: bytes, reason: str) -> None:
    assert reason in refused(data)
