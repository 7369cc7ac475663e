"""Changes one tensor in torch: in blocks of rows if all of its changes can, else as a whole, in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from adaptry.adapters.header import TensorInfo
from adaptry.adapters.methods.row_change import RowChange
from adaptry.compute.merging.dequantisation import dequantise
from adaptry.compute.merging.io import ShardReader, TensorSink
from adaptry.compute.merging.layout import BaseTensor, OutputTensor
from adaptry.compute.merging.value_tally import ValueTally
from adaptry.compute.merging.whole_changes import StoredWeight, apply_changes, changes_by_rows
from adaptry.core.errors import InvalidWeights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from adaptry.compute.tensors.adapter_tensors import ReadBias

_PART = 64 << 20
_CACHE_LINE = 64


def merge_dense_tensor(tensor: OutputTensor, sink: TensorSink, tally: ValueTally | None = None) -> None:
    """Writes the changed tensor. `tally` counts changed values. Raises `InvalidWeights` if a change does not
    fit the tensor.
    """
    import torch

    def read_bias() -> Tensor | None:
        return None if tensor.bias is None else read_base_weight(sink, tensor.bias)

    with torch.inference_mode():
        with _fitting(tensor):
            change = _row_change(tensor, read_bias)
        if change is None:
            _merge_whole(tensor, sink, read_bias, tally)
        else:
            _merge_rows(tensor, change, sink, tally)


def _row_change(tensor: OutputTensor, read_bias: ReadBias) -> RowChange | None:
    """The tensor's changes by rows; None if one of them needs the whole, or its products are so deep or thin
    that BLAS may sum those of a block in another order.
    """
    from adaptry.compute.tensors.adapter_tensors import DTYPES
    from adaptry.compute.tensors.kernel import DEEP, THIN

    shape = tensor.source.shape
    if not tensor.changes or tensor.packed or tensor.rows is not None or len(shape) != 2:
        return None
    if not tensor.source.numel:
        return None
    weight = StoredWeight(shape, _working_dtype(DTYPES[tensor.source.dtype], tensor))
    change = changes_by_rows(tensor.changes, weight, read_bias)
    if change is None or change.depth > DEEP or (change.depth and min(shape) < THIN):
        return None
    return change


def _merge_rows(tensor: OutputTensor, change: RowChange, sink: TensorSink, tally: ValueTally | None) -> None:
    import torch

    from adaptry.compute.tensors.adapter_tensors import DTYPES
    from adaptry.compute.tensors.dtypes import safetensors_dtype
    from adaptry.compute.tensors.kernel import unit_blocks

    info = tensor.source
    rows, columns = info.shape
    row_bytes, row_out = info.size // rows, tensor.size // rows
    blocks = list(unit_blocks(rows, row_bytes, change.unit))
    memory = memoryview(bytearray(max(count for _, count in blocks) * row_bytes))
    dtype = DTYPES[info.dtype]

    def read(first: int, count: int) -> memoryview:
        block = memory[: count * row_bytes]
        sink.read(tensor.shard, block, info.start + first * row_bytes)
        return block

    for first, count in blocks:
        stored = torch.frombuffer(read(first, count), dtype=dtype).view(count, columns)
        stored = stored.to(_working_dtype(dtype, tensor))
        with _fitting(tensor):
            result = change.apply(stored, first)
        _require_shape(result, tuple(stored.shape), tensor)
        written = _bytes(result.to(DTYPES[tensor.dtype]))
        if tally is not None:
            tally.add(written, partial(_bytes, stored), safetensors_dtype(stored.dtype))
        sink.write(written, tensor.offset + first * row_out)


def _merge_whole(
    tensor: OutputTensor, sink: TensorSink, read_bias: ReadBias, tally: ValueTally | None
) -> None:
    from adaptry.compute.tensors.adapter_tensors import DTYPES
    from adaptry.compute.tensors.dtypes import safetensors_dtype

    stored = read_base_weight(sink, BaseTensor(tensor.shard, tensor.source, tensor.packed))
    stored = stored.to(_working_dtype(stored.dtype, tensor))
    with _fitting(tensor):
        result = apply_changes(tensor.changes, stored, read_bias) if tensor.changes else stored
    _require_shape(result, tensor.shape, tensor)
    written = _bytes(result.to(DTYPES[tensor.dtype]))
    if tally is not None:
        tally.add(written, lambda: _bytes(stored), safetensors_dtype(stored.dtype))
    sink.write(written, tensor.offset)


def _working_dtype(stored: torch.dtype, tensor: OutputTensor) -> torch.dtype:
    """The dtype in which the base's values are changed: the stored dtype, or float32 if the result's dtype
    differs, so that the sum is rounded only once.
    """
    import torch

    from adaptry.compute.tensors.adapter_tensors import DTYPES

    is_cast = stored != DTYPES[tensor.dtype] and stored.is_floating_point
    return torch.float32 if is_cast else stored


@contextlib.contextmanager
def _fitting(tensor: OutputTensor) -> Iterator[None]:
    """Converts torch's errors about tensors that do not fit together into `InvalidWeights`."""
    try:
        yield
    except (LookupError, RuntimeError, ValueError) as error:
        raise InvalidWeights(
            f"the tensors of an adapter for {tensor.name} do not fit it ({error}); check the adapter"
            " against its base"
        ) from error


def _require_shape(result: Tensor, shape: tuple[int, ...], tensor: OutputTensor) -> None:
    if result.shape != shape:
        raise InvalidWeights(
            f"an adapter would make {tensor.name} {list(result.shape)}, but it is {list(shape)};"
            " check the adapter against its base"
        )


def read_base_weight(reader: ShardReader, place: BaseTensor) -> Tensor:
    """The base's tensor at `place`; a packed one is dequantised and rounded to its dtype in the result."""
    from adaptry.compute.tensors.adapter_tensors import DTYPES

    if place.packed is None:
        return _read(reader, place.shard, place.info)
    return dequantise(place.packed, partial(_read, reader)).to(DTYPES[place.info.dtype])


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    data: memoryview = tensor.contiguous().view(-1).view(torch.uint8).numpy().data
    return data


def _read(reader: ShardReader, shard: str, info: TensorInfo) -> Tensor:
    """Reads a tensor of a file to memory with the same alignment to cache lines as in the file. transformers
    maps files, and the order in which MKL sums a matrix times a vector depends on where the matrix begins.
    """
    import torch

    from adaptry.compute.tensors.adapter_tensors import DTYPES

    dtype = DTYPES[info.dtype]
    if not info.size:
        return torch.empty(info.shape, dtype=dtype)
    memory = torch.empty(info.size + _CACHE_LINE, dtype=torch.uint8)
    first = (info.start - memory.data_ptr()) % _CACHE_LINE
    first -= first % dtype.itemsize  # torch's tensors begin at a multiple of the element's size
    data = memory[first : first + info.size]
    view: memoryview = data.numpy().data
    for start in range(0, info.size, _PART):
        reader.read(shard, view[start : start + _PART], info.start + start)
    return data.view(dtype).view(info.shape)
