"""Sketches of quantised weights, and whether other numbers may be the values that were rounded to them.

Each code of bitsandbytes stands for all values that round to it. The sketch of such a weight has these
ranges, for the same elements as the sketch of a plain weight. This distinguishes a copy of a model from a
copy of its fine-tune, whose norms and embeddings are often the same. Methods that do not round to the nearest
value (GPTQ, AWQ) allow no comparison; their bytes are sampled.
"""

from __future__ import annotations

import base64
import itertools
import struct
from collections.abc import Callable, Iterator

from adaptry.adapters.base_record import Sketch
from adaptry.adapters.header import ReadAt
from adaptry.bases.fingerprinting.dtype_cast import sample_casts
from adaptry.bases.fingerprinting.sketch import sample_positions, sketch_tensor
from adaptry.bases.quantised import PackedWeight
from adaptry.core.errors import InvalidWeights

Range = tuple[float, float]
_Read = Callable[[str, int, int], bytes]
"""`read(role, offset, length)` returns bytes of one of a packed weight's tensors."""

_SLACK = 1e-5  # largest distance of a float32 product from the exact bound
_INT8 = 127.0


def sketch_packed_weight(packed: PackedWeight, name: str, reader: Callable[[str], ReadAt]) -> Sketch:
    """The sketch of a packed weight, normalised name `name`. Raises `InvalidWeights` if a file is
    truncated.
    """
    if not packed.is_bitsandbytes:
        raw = (
            base64.b64decode(sketch_tensor(reader(part.name), part.info, f"{name}\t{role}").samples)
            for role, part in sorted(packed.parts.items())
        )
        return Sketch(samples=base64.b64encode(b"".join(raw)).decode("ascii"))

    def read(role: str, offset: int, length: int) -> bytes:
        part = packed.parts[role]
        data = reader(part.name)(part.info.start + offset, length)
        if len(data) != length:
            raise InvalidWeights(f"the file ended inside {part.name}; is the download complete?")
        return data

    range_of = _four_bit_ranges(packed, read) if packed.four_bit else _int8_ranges(packed, read)
    ranges = [range_of(_stored_place(packed, place)) for place in sample_positions(name, packed.shape)]
    return Sketch(
        samples=base64.b64encode(b"".join(struct.pack("<2f", *each) for each in ranges)).decode("ascii")
    )


def rounds_to(dtype: str, samples: str, packed: str) -> bool:
    """Whether plain `samples`, or a cast of them, lie in the ranges of the sketch `packed`."""
    ranges = list(_ranges(packed))
    return any(
        len(values) == len(ranges)
        and all(
            low - _SLACK * abs(low) <= value <= high + _SLACK * abs(high)
            for value, (low, high) in zip(values, ranges, strict=True)
        )
        for values in sample_casts(dtype, samples)
    )


def may_share_a_source(packed_a: str, packed_b: str) -> bool:
    """Whether the same values could have been rounded to both."""
    a, b = list(_ranges(packed_a)), list(_ranges(packed_b))
    return len(a) == len(b) and all(
        max(low_a, low_b)
        <= min(high_a, high_b) + _SLACK * max(abs(high_a), abs(high_b), abs(low_a), abs(low_b))
        for (low_a, high_a), (low_b, high_b) in zip(a, b, strict=True)
    )


def _ranges(samples: str) -> Iterator[Range]:
    return struct.iter_unpack("<2f", base64.b64decode(samples))


def _stored_place(packed: PackedWeight, place: int) -> int:
    """The position of an element's code."""
    if not packed.is_transposed:
        return place
    rows, columns = packed.shape
    return (place % columns) * rows + place // columns


def _four_bit_ranges(packed: PackedWeight, read: _Read) -> Callable[[int], Range]:
    state = packed.four_bit
    assert state is not None, "only called for four-bit weights"
    steps = _steps(struct.unpack("<16f", read("quant_map", 0, 64)))
    nested = _steps(struct.unpack("<256f", read("nested_quant_map", 0, 1024))) if state.is_nested else []

    def scale(block: int) -> Range:
        if not state.is_nested:
            return struct.unpack("<f", read("absmax", 4 * block, 4)) * 2
        (outer,) = struct.unpack("<f", read("nested_absmax", 4 * (block // state.nested_blocksize), 4))
        low, high = nested[read("absmax", block, 1)[0]]
        return low * outer + state.nested_offset, high * outer + state.nested_offset

    def range_of(place: int) -> Range:
        (byte,) = read("codes", place // 2, 1)
        steps_low, steps_high = steps[byte & 15 if place % 2 else byte >> 4]
        ends = [step * end for step in (steps_low, steps_high) for end in scale(place // state.blocksize)]
        return min(ends), max(ends)

    return range_of


def _int8_ranges(packed: PackedWeight, read: _Read) -> Callable[[int], Range]:
    columns = packed.codes.info.shape[1]

    def range_of(place: int) -> Range:
        (code,) = struct.unpack("<b", read("codes", place, 1))
        (scale,) = struct.unpack("<f", read("SCB", 4 * (place // columns), 4))
        return (code - 0.5) * scale / _INT8, (code + 0.5) * scale / _INT8

    return range_of


def _steps(table: tuple[float, ...]) -> list[Range]:
    """The interval of values from −1 to 1 that are nearest to each code's value."""
    ordered = sorted(set(table))
    middles = [(low + high) / 2 for low, high in itertools.pairwise(ordered)]
    bounds = [min(-1.0, ordered[0]), *middles, max(1.0, ordered[-1])]
    return [(bounds[place], bounds[place + 1]) for place in map(ordered.index, table)]
