"""An adapter's tensors as stored, over the mapped file: nothing is copied until needed.

A tensor on the CPU is the file's own pages. Writing to one changes this process's copy of the page, never the
file.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.adapters.header import TensorInfo
from adaptry.core.display import format_size, short_repr
from adaptry.core.errors import Invalid, Unsupported

if TYPE_CHECKING:
    from torch import Tensor, device, dtype

_WORDS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


class LazyTensors(Mapping[str, "Tensor"]):
    """Names in the file's order. Tensors are created on look-up, on `device`, floats as `dtype` if given."""

    def __init__(
        self, path: Path, infos: Mapping[str, TensorInfo], device: str | device, dtype: dtype | None
    ) -> None:
        self._infos, self._device, self._dtype = infos, device, dtype
        with path.open("rb") as file:
            self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def __getitem__(self, name: str) -> Tensor:
        """The tensor, in the file's shape. Raises `KeyError`, and `Unsupported` for a dtype that torch
        lacks.
        """
        tensor = _over(self._memory, self._infos[name], name)
        floats = self._dtype if tensor.is_floating_point() else None
        return tensor.to(self._device, floats or tensor.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def __repr__(self) -> str:
        size = format_size(sum(info.size for info in self._infos.values()))
        dtypes = ", ".join(sorted({info.dtype for info in self._infos.values()}))
        as_dtype = "" if self._dtype is None else f"floats as {str(self._dtype).removeprefix('torch.')}"
        return short_repr(
            self, f"{len(self)} tensors", f"{dtypes} in the file", size, as_dtype, f"on {self._device}"
        )


def require_device_and_dtype(device: str | device, dtype: dtype | None) -> None:
    """Raises `Invalid` for a device or dtype that torch lacks."""
    import torch

    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise Invalid(f"dtype must be a floating-point dtype of torch, such as torch.bfloat16, not {dtype!r}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise Invalid(f"torch has no device {device!r} here: {str(error).splitlines()[0]}") from error


def _over(memory: mmap.mmap, info: TensorInfo, name: str) -> Tensor:
    import torch

    word = _WORDS.get(info.dtype)
    kind = getattr(torch, word, None) if word else None
    if kind is None:
        raise Unsupported(f"{name} is {info.dtype}, which torch {torch.__version__} does not support")
    if not info.size:
        return torch.empty(info.shape, dtype=kind)
    if info.start + info.size > len(memory):
        raise Invalid(f"{name} ends after the file's end; the file may have been replaced while it was read")
    if info.start % kind.itemsize:  # the format allows this alignment, vector instructions may not
        data = bytearray(memory[info.start : info.start + info.size])
        return torch.frombuffer(data, dtype=kind).view(info.shape)
    count = info.size // kind.itemsize
    return torch.frombuffer(memory, dtype=kind, count=count, offset=info.start).view(info.shape)
