"""Parses a long safetensors header in a child process, which returns the tensors in a form that is fast to
read.

Checking a header of 12 MiB (an adapter of 256 experts in 58 layers has 89,088 tensors) takes three seconds of
processor time and 100 MiB. If a server did this in its own process, all other clients would wait. The child
checks it like `parse_header`, with limits on time and memory, and answers in columns: texts as their lengths
and one block of UTF-8, numbers as arrays in native byte order. Standard library only.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence

from adaptry.adapters.header import DTYPE_BITS, HeaderLimits, SafetensorsHeader, TensorInfo, parse_in_process
from adaptry.core.errors import InvalidWeights, Unavailable
from adaptry.core.processes.bounded import ProcessFailed, ProcessLimits, ProcessTimeout
from adaptry.core.processes.slots import ProcessSlots
from adaptry.core.processes.worker_pool import run_in_worker

_MIB = 1 << 20
_DTYPES = tuple(DTYPE_BITS)
_REFUSED, _READ = b"!", b"="
_SLOTS = ProcessSlots(running=2, waiting=8, timeout=120.0)


def parse_in_child(raw: bytes, size: int, label: str, limits: HeaderLimits) -> SafetensorsHeader:
    """Like `parse_header`. Raises `Unavailable` if no process can be started, or if it crashed."""
    mib = len(raw) // _MIB + 1
    bounds = ProcessLimits(
        4.0 + 2.0 * mib, (256 + 64 * mib) * _MIB, answer=2 * len(raw) + 128 * limits.tensors
    )
    arguments = [str(size), label, str(limits.size), str(limits.tensors)]
    try:
        with _SLOTS.acquire("headers of more than 32 KiB"):
            answered = run_in_worker("adaptry.adapters.header_process", raw, bounds, arguments)
    except ProcessTimeout:
        raise InvalidWeights(f"{label}'s header takes more than {bounds.seconds:.0f} s to read") from None
    except ProcessFailed as error:
        raise Unavailable(f"{label}'s header could not be read: {error}") from error
    if answered.startswith(_REFUSED):
        raise InvalidWeights(answered[1:].decode())
    tensors, metadata = _unpacked(answered, 8 + len(raw))
    return SafetensorsHeader(tensors, metadata, 8 + len(raw), raw)


def _packed(header: SafetensorsHeader) -> Iterator[bytes]:
    tensors = header.tensors.values()
    metadata = [text for pair in header.metadata.items() for text in pair]
    yield _READ
    yield from _block(b"".join(_texts(list(header.tensors))))
    yield from _block(bytes(_DTYPES.index(info.dtype) for info in tensors))
    yield from _block(bytes(len(info.shape) for info in tensors))
    yield from _block(array("Q", [dim for info in tensors for dim in info.shape]).tobytes())
    yield from _block(array("Q", [info.end for info in tensors]).tobytes())
    yield from _block(b"".join(_texts(metadata)))


def _unpacked(answer: bytes, start: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    names, dtypes, ranks, dims, ends, texts = _blocks(answer)
    sizes = iter(_numbers("Q", dims))
    shapes: dict[tuple[int, ...], tuple[int, ...]] = {}  # shared, because an adapter has few distinct shapes
    tensors: dict[str, TensorInfo] = {}
    position = start
    for name, dtype, rank, end in zip(_read_texts(names), dtypes, ranks, _numbers("Q", ends), strict=True):
        shape = tuple(next(sizes) for _ in range(rank))
        tensors[name] = TensorInfo(_DTYPES[dtype], shapes.setdefault(shape, shape), position, end)
        position = end
    pairs = iter(_read_texts(texts))
    return tensors, dict(zip(pairs, pairs, strict=True))


def _block(data: bytes) -> Iterator[bytes]:
    yield struct.pack("<Q", len(data))
    yield data


def _blocks(answer: bytes) -> Iterator[bytes]:
    place = 1
    while place < len(answer):
        (length,) = struct.unpack_from("<Q", answer, place)
        yield answer[place + 8 : place + 8 + length]
        place += 8 + length


def _texts(texts: Sequence[str]) -> Iterator[bytes]:
    yield struct.pack("<Q", len(texts))
    yield array("I", map(len, texts)).tobytes()
    yield "".join(texts).encode()


def _read_texts(block: bytes) -> Iterator[str]:
    (count,) = struct.unpack_from("<Q", block)
    lengths = _numbers("I", block[8 : 8 + 4 * count])
    text = block[8 + 4 * count :].decode()
    place = 0
    for length in lengths:
        yield text[place : place + length]
        place += length


def _numbers(kind: str, data: bytes) -> array[int]:
    numbers: array[int] = array(kind)
    numbers.frombytes(data)
    return numbers


def answer(raw: bytes, size: str, what: str, limit: str, tensors: str) -> bytes:
    """The header in columns, or the reason why it is refused."""
    try:
        header = parse_in_process(raw, int(size), what, HeaderLimits(int(limit), int(tensors)))
    except InvalidWeights as error:
        return _REFUSED + error.message.encode("utf-8", "replace")
    return b"".join(_packed(header))
