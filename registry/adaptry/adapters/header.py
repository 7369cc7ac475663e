"""The header of a safetensors file, parsed strictly: its tensors and their positions.

It is stricter than the reference parser: no duplicate names, unknown fields or wrong offsets, and limits on
rank, dimensions, count and size. The reference accepts everything that this parser accepts; a fuzz test
checks this. Weights are never read here. A child process reads headers over 32 KiB (`header_process`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import field

from adaptry.core import strictjson
from adaptry.core.errors import Invalid, InvalidWeights
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern

ReadAt = Callable[[int, int], bytes]
"""`read(offset, length)` returns the bytes from `offset` on; fewer only at the end of the file."""

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
PLAIN_FLOATS = frozenset({"F32", "F16", "BF16"})
"""Dtypes in which weights are merged."""

_MAX_IN_PROCESS = 32 << 10  # bytes: 20 ms of processor time at worst
_MAX_RANK = 8
_MAX_DIM = 1 << 31
_NAME = lazy_pattern(r"[\x21-\x7e]{1,512}")


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """Limits on a header. Adapters have tight limits, bases wider ones."""

    size: int
    tensors: int


ADAPTER_LIMITS = HeaderLimits(size=24 << 20, tensors=196_608)
BASE_LIMITS = HeaderLimits(size=64 << 20, tensors=1_000_000)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's entry: dtype as safetensors writes it (`BF16`), shape, and byte range [start, end) in the
    file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """Tensors by name, in the order of their bytes; the free-form metadata; and the position where data
    begins.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    data_start: int = 8
    raw: bytes = b""


_REMEDY = "download, copy or save it again"


def read_header(
    read: ReadAt, size: int, label: str, limits: HeaderLimits = ADAPTER_LIMITS
) -> SafetensorsHeader:
    """Reads the header of a safetensors file of `size` bytes.

    Offsets in the result count from the beginning of the file. Raises `InvalidWeights`, with `label` and the
    reason, and `Unavailable` if the header is long and no process can be started to read it.
    """
    if size < 10:
        raise InvalidWeights(f"{label} is {size} bytes, too short to be a safetensors file; {_REMEDY}")
    prefix = read(0, 64 if size >= 64 else size)
    if prefix.startswith(b"version https://git-lfs"):
        raise InvalidWeights(
            f"{label} is a Git LFS pointer, not the weights: run `git lfs pull` and push again"
        )
    length = int.from_bytes(prefix[:8], "little")
    if length > limits.size:
        raise InvalidWeights(
            f"{label} declares a header of {length:,} bytes (at most {limits.size:,}):"
            f" it is not a safetensors file; {_REMEDY}"
        )
    if length < 2 or 8 + length > size:
        raise InvalidWeights(
            f"{label} is truncated or not a safetensors file: its header would have {length:,} bytes, and the"
            f" file has {size:,}; {_REMEDY}"
        )
    raw = read(8, length)
    if len(raw) != length:
        raise InvalidWeights(f"{label} ended inside its header; is it still being written?")
    return parse_header(raw, size, label, limits)


def parse_header(
    raw: bytes, size: int, label: str, limits: HeaderLimits = ADAPTER_LIMITS
) -> SafetensorsHeader:
    """Like `read_header`, from the header's bytes; `size` is that of the whole file."""
    if len(raw) <= _MAX_IN_PROCESS:
        return parse_in_process(raw, size, label, limits)
    from adaptry.adapters.header_process import parse_in_child

    return parse_in_child(raw, size, label, limits)


def parse_in_process(raw: bytes, size: int, label: str, limits: HeaderLimits) -> SafetensorsHeader:
    """Like `parse_header`, but always in this process."""
    if not raw.startswith(b"{"):
        raise InvalidWeights(f"{label}: the header does not begin with '{{'")
    try:
        document = strictjson.loads(
            raw.rstrip(b" "),
            strictjson.JsonLimits(size=limits.size, depth=3, nodes=limits.tensors * 9 + 10_000),
            f"{label}'s header",
        )
    except Invalid as error:
        raise InvalidWeights(error.message) from None
    metadata = _metadata(document.pop("__metadata__", None), label)
    if len(document) > limits.tensors:
        raise InvalidWeights(f"{label} has {len(document):,} tensors; at most {limits.tensors:,} are read")
    start = 8 + len(raw)
    infos = {name: _tensor(name, entry, start, size, label) for name, entry in document.items()}
    ordered = dict(sorted(infos.items(), key=lambda item: (item[1].start, item[1].end)))
    _check_tiling(ordered, start, size, label)
    return SafetensorsHeader(ordered, metadata, start, raw)


def _metadata(entry: object, what: str) -> dict[str, str]:
    if entry is None:  # absent, or the null that MLX writes
        return {}
    if not isinstance(entry, dict) or any(not isinstance(value, str) for value in entry.values()):
        raise InvalidWeights(f"{what}: __metadata__ must map text to text")
    return entry


def _tensor(name: str, entry: object, data_start: int, size: int, what: str) -> TensorInfo:
    if not _NAME.fullmatch(name) or ".." in name or "/" in name:
        raise InvalidWeights(
            f"{what}: {name[:60]!a} is not an allowed tensor name (printable ASCII, at most 512 characters)"
        )
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise InvalidWeights(f"{what}: {name} must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise InvalidWeights(f"{what}: {name} has the unknown dtype {str(dtype)[:20]!r}")
    if not _are_naturals(shape) or len(shape) > _MAX_RANK or any(dim > _MAX_DIM for dim in shape):
        raise InvalidWeights(f"{what}: {name} has an invalid shape (at most {_MAX_RANK} dimensions)")
    if not _are_naturals(offsets) or len(offsets) != 2:
        raise InvalidWeights(f"{what}: {name} has invalid data_offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPE_BITS[dtype] // 8 or data_start + end > size:
        raise InvalidWeights(
            f"{what}: the byte range of {name} does not match its shape and the file's size;"
            " the file is truncated, or its header is wrong; copy or save it again"
        )
    return TensorInfo(dtype, tuple(shape), data_start + begin, data_start + end)


def _are_naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_tiling(tensors: Mapping[str, TensorInfo], start: int, size: int, what: str) -> None:
    """Checks that the tensors cover the data exactly once: gaps and overlaps can hide a second file in the
    first.
    """
    position = start
    for name, info in tensors.items():
        if info.start != position:
            raise InvalidWeights(f"{what}: a gap or an overlap in the data before {name}")
        position = info.end
    if position != size:
        raise InvalidWeights(f"{what} has {size - position:,} bytes that belong to no tensor")
