"""Headers over 32 KiB are read by a child process, with the same result as in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from adaptry.adapters import header_process
from adaptry.adapters.header import (
    ADAPTER_LIMITS,
    HeaderLimits,
    SafetensorsHeader,
    parse_header,
    parse_in_process,
)
from adaptry.adapters.header_process import parse_in_child
from adaptry.core.errors import InvalidWeights, Unavailable
from adaptry.core.processes.bounded import ProcessFailed

LONG = 1 << 18


def header_of(
    count: int, metadata: dict[str, str] | None = None, name: str = "base_model.model.layers"
) -> bytes:
    """A valid header of `count` tensors of 2 bytes."""
    entries: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    for n in range(count):
        shape = [[1], [], [1, 1, 1], [0, 3]][n % 4]
        entries[f"{name}.{n:06}.lora_A.weight"] = shape
    position = 0
    for key, shape in entries.items():
        if isinstance(shape, list):
            end = position + (0 if 0 in shape else 2)
            entries[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, end]}
            position = end
    return json.dumps(entries, ensure_ascii=False).encode()


def size_of(raw: bytes) -> int:
    ends = re.findall(rb"(\d+)\]}", raw)
    return 8 + len(raw) + int(ends[-1])


METADATA = {"format": "pt", "é": '😀\n\0"', "": "", "long": "x" * LONG}


@pytest.mark.parametrize("count", [9, 3_000, 12_000, 89_088])
def test_a_long_header_is_read_as_a_short_one(count: int) -> None:
    raw = header_of(count, METADATA if count == 9 else None)
    assert len(raw) > LONG
    found = parse_header(raw, size_of(raw), "it")
    expected = parse_in_process(raw, size_of(raw), "it", ADAPTER_LIMITS)
    assert found == expected
    assert list(found.tensors) == list(expected.tensors)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"[" + b" " * LONG, "does not begin"),
        (lambda: b'{"a"' + b" " * LONG, "not JSON"),
        (lambda: b'{"a":1,' + b" " * LONG + b'"a":2}', "'a' twice"),
        (lambda: header_of(196_609), "at most 196,608"),
        (lambda: header_of(12_000) + b"x", "not JSON"),
        (lambda: b"{" + b",".join(b'"%d":{}' % n for n in range(600_000)) + b"}", "at most 196,608"),
    ],
    ids=["list", "cut", "twice", "many", "rest", "empty"],
)
def test_a_long_header_that_is_wrong_is_refused_for_the_same_reason(
    make: Callable[[], bytes], reason: str
) -> None:
    raw = make()
    for read in (parse_header, parse_in_process):
        with pytest.raises(InvalidWeights, match=reason):
            read(raw, 8 + len(raw), "it", ADAPTER_LIMITS)


def test_failing_to_start_a_process_raises_unavailable_and_gives_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise ProcessFailed("the process could not be started: no fork")

    monkeypatch.setattr(header_process, "run_in_worker", fail)
    raw = header_of(12_000)
    with pytest.raises(Unavailable, match="no fork"):
        parse_header(raw, size_of(raw), "it")
    assert isinstance(parse_header(header_of(9), size_of(header_of(9)), "it"), SafetensorsHeader)


def hostile_headers(size: int) -> dict[str, bytes]:
    """The most expensive headers of about `size` bytes."""
    return {
        "empty lists": b'{"a":[' + b"[]," * (size // 3) + b"[]]}",
        "numbers": b'{"a":[' + b"1," * (size // 2) + b"1]}",
        "keys": b"{" + b",".join(b'"%07d":1' % n for n in range(size // 12)) + b"}",
        "metadata": b'{"__metadata__":{' + b",".join(b'"%07d":""' % n for n in range(size // 13)) + b"}}",
        "escapes": b'{"' + rb"\"" * (size // 2),
        "marks": b"{" + b'"' * size,
        "one text": b'{"__metadata__":{"a":"' + "😀".encode() * (size // 4) + b'"}}',
    }


@pytest.mark.heavy
@pytest.mark.parametrize(
    "limits", [ADAPTER_LIMITS, HeaderLimits(size=64 << 20, tensors=1_000_000)], ids=["24", "64"]
)
@pytest.mark.parametrize("kind", hostile_headers(64))
def test_every_header_within_the_limits_is_answered(kind: str, limits: HeaderLimits) -> None:
    """Each header is read or refused; none exceeds the limits of time or memory (`Unavailable`)."""
    raw = hostile_headers(limits.size - 64)[kind]
    try:
        found = parse_in_child(raw, 8 + len(raw), "it", limits)
    except InvalidWeights as error:
        assert "takes more than" not in error.message
    else:
        assert found.tensors == {}
