"""The layout of a merged checkpoint's files, computed before anything is written.

Each output file is a header and tensors in order, which are copied, cast or merged. Names, offsets and sizes
are known here, so files can be allocated at once and written in any order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from adaptry.adapters.header import DTYPE_BITS, TensorInfo
from adaptry.bases.quantised import PackedWeight
from adaptry.compute.merging.lora_delta import LoraDelta
from adaptry.compute.merging.whole_changes import WholeChange
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class BaseTensor:
    """The position of a base's tensor; `packed` if it will be dequantised."""

    shard: str
    info: TensorInfo
    packed: PackedWeight | None = None


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One tensor of the result.

    Its values are those of `source` in the base's file `shard`, plus the updates, in `dtype`, at `offset` in
    the output file. `is_transposed`: stored as [in, out], like a Conv1D. `packed`: it is quantised in the
    base; `source` then has the shape and dtype of the result, and the position of its codes.
    """

    name: str
    shard: str
    source: TensorInfo
    dtype: str
    offset: int
    updates: tuple[LoraDelta, ...] = ()
    is_transposed: bool = False
    changes: tuple[WholeChange, ...] = ()
    bias: BaseTensor | None = None
    rows: int | None = None
    """The number of rows, if it differs from `source` because of a larger vocabulary."""
    packed: PackedWeight | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape if self.rows is None else (self.rows, *self.source.shape[1:])

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        return self.numel * DTYPE_BITS[self.dtype] // 8

    @property
    def is_adapted(self) -> bool:
        """Whether an adapter changes it."""
        return bool(self.updates or self.changes)

    @property
    def is_copy(self) -> bool:
        """Whether its bytes are copied unchanged from the base."""
        is_plain = not self.is_adapted and self.packed is None
        return is_plain and (self.dtype == self.source.dtype or not self.source.numel)

    @property
    def is_whole(self) -> bool:
        """Whether the tensor is computed as a whole in memory, and not in blocks of rows."""
        return bool(self.changes) or self.packed is not None

    @property
    def shards(self) -> Iterator[str]:
        """The base's files that are read for it."""
        yield self.shard
        for place in (self.bias, BaseTensor(self.shard, self.source, self.packed)):
            if place is not None:
                yield place.shard
                yield from (part.shard for part in (place.packed.parts.values() if place.packed else ()))


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One weights file of the result: header bytes (length prefix included), then the tensors in order."""

    name: str
    header: bytes
    tensors: tuple[OutputTensor, ...]

    @property
    def size(self) -> int:
        return len(self.header) + sum(tensor.size for tensor in self.tensors)


def plan_files(
    shards: Iterable[str], tensors: Sequence[OutputTensor], limit: int | None, stem: str = "model"
) -> tuple[OutputFile, ...]:
    """Distributes the tensors to files: those of the base, or files of up to `limit` bytes, in the same
    order, with names that begin with `stem`.
    """
    groups: list[list[OutputTensor]] = []
    if limit is None:
        by_shard: dict[str, list[OutputTensor]] = {name: [] for name in shards}
        for tensor in tensors:
            by_shard[tensor.shard].append(tensor)
        return tuple(_file(name, placed) for name, placed in by_shard.items() if placed)
    room = 0
    for tensor in tensors:
        if not groups or tensor.size > room:
            groups.append([])
            room = limit
        groups[-1].append(tensor)
        room -= tensor.size
    if len(groups) == 1:
        return (_file(f"{stem}.safetensors", groups[0]),)
    return tuple(
        _file(f"{stem}-{number:05d}-of-{len(groups):05d}.safetensors", placed)
        for number, placed in enumerate(groups, 1)
    )


def _file(name: str, tensors: Sequence[OutputTensor]) -> OutputFile:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, position + tensor.size],
        }
        position += tensor.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    placed, position = [], len(header)
    for tensor in tensors:
        placed.append(replace(tensor, offset=position))
        position += tensor.size
    return OutputFile(name, header, tuple(placed))
