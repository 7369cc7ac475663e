"""Changes one tensor as a whole: reads it, changes it in torch, and writes it. Each thread has one in
memory.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from adaptry.adapters.header import TensorInfo
from adaptry.compute.merging.dequantisation import dequantise
from adaptry.compute.merging.io import ShardReader, TensorSink
from adaptry.compute.merging.layout import BaseTensor, OutputTensor
from adaptry.compute.merging.value_tally import ValueTally
from adaptry.compute.merging.whole_changes import apply_changes
from adaptry.core.errors import InvalidWeights

if TYPE_CHECKING:
    from torch import Tensor

_PART = 64 << 20


def merge_whole_tensor(tensor: OutputTensor, sink: TensorSink, tally: ValueTally | None = None) -> None:
    """`tally` counts changed values. Raises `InvalidWeights` if a change does not fit the tensor."""
    import torch

    from adaptry.compute.tensors.adapter_tensors import DTYPES
    from adaptry.compute.tensors.dtypes import safetensors_dtype

    def read_bias() -> Tensor | None:
        return None if tensor.bias is None else read_base_weight(sink, tensor.bias)

    with torch.inference_mode():
        stored = read_base_weight(sink, BaseTensor(tensor.shard, tensor.source, tensor.packed))
        if stored.dtype != DTYPES[tensor.dtype] and stored.is_floating_point():
            stored = stored.float()  # the sum is rounded once, to the requested dtype
        try:
            result = apply_changes(tensor.changes, stored, read_bias) if tensor.changes else stored
        except (
            LookupError,
            RuntimeError,
            ValueError,
        ) as error:  # torch's errors for tensors that do not fit together
            raise InvalidWeights(
                f"the tensors of an adapter for {tensor.name} do not fit it ({error}); check the adapter"
                " against its base"
            ) from error
        if result.shape != tensor.shape:
            raise InvalidWeights(
                f"an adapter would make {tensor.name} {list(result.shape)}, but it is {list(tensor.shape)};"
                " check the adapter against its base"
            )
        changed = result.to(DTYPES[tensor.dtype]).contiguous()
        written = _bytes(changed)
        if tally is not None:
            tally.add(written, lambda: _bytes(stored), safetensors_dtype(stored.dtype))
        sink.write(written, tensor.offset)


def read_base_weight(reader: ShardReader, place: BaseTensor) -> Tensor:
    """The base's tensor at `place`; if it is packed, dequantised and rounded to its dtype in the result."""
    from adaptry.compute.tensors.adapter_tensors import DTYPES

    if place.packed is None:
        return _read(reader, place.shard, place.info)
    return dequantise(place.packed, partial(_read, reader)).to(DTYPES[place.info.dtype])


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    data: memoryview = tensor.contiguous().view(-1).view(torch.uint8).numpy().data
    return data


def _read(reader: ShardReader, shard: str, info: TensorInfo) -> Tensor:
    from adaptry.compute.tensors.adapter_tensors import as_tensor

    data = bytearray(info.size)
    view = memoryview(data)
    for start in range(0, info.size, _PART):
        reader.read(shard, view[start : start + _PART], info.start + start)
    return as_tensor(data, info)
