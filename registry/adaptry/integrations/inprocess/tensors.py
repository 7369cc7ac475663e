"""An adapter's tensors as stored: backed by the mapped file (`LazyTensors`), where nothing is copied until
needed, or read into existing memory (`TensorReader`).

A tensor of `LazyTensors` on the CPU is the file's own pages. Writing to one changes this process's copy of
the page, never the file.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.adapters.header import TensorInfo
from adaptry.core.display import format_count, format_size, short_repr
from adaptry.core.errors import Invalid, Unavailable, Unsupported

if TYPE_CHECKING:
    from torch import Tensor, device, dtype

_WORDS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


_VECTOR = 512  # buffers of one system call, of which Linux takes 1,024


class LazyTensors(Mapping[str, "Tensor"]):
    """A mapping with names in the file's order. Tensors are created on look-up, on `device`, with floats as
    `dtype` if given.
    """

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
        tensor = _tensor_view(self._memory, self._infos[name], name)
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
            self,
            format_count(len(self), "tensor"),
            f"{dtypes} in the file",
            size,
            as_dtype,
            f"on {self._device}",
        )


class TensorReader:
    """Reads a file's tensors into existing memory.

    Copying from the mapped file takes a page fault for each run of pages, which is slower than the copying.
    """

    def __init__(self, path: Path, infos: Mapping[str, TensorInfo]) -> None:
        self._infos = infos
        self._file = path.open("rb", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size
        self._scratch = bytearray()

    def close(self) -> None:
        self._file.close()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._infos[name].shape

    def require(self, name: str) -> None:
        """Raises `Unsupported` for a dtype that torch lacks, and `Invalid` if the file is too short."""
        info = self._infos[name]
        _torch_dtype(info, name)
        _require_within(info, name, self._size)

    def read(self, name: str) -> Tensor:
        """The tensor as stored, valid until the next call. Raises `Unavailable`."""
        import torch

        info = self._infos[name]
        dtype = _torch_dtype(info, name)
        if not info.size:
            return torch.empty(info.shape, dtype=dtype)
        if len(self._scratch) < info.size:
            self._scratch = bytearray(info.size)
        self._fill(memoryview(self._scratch)[: info.size], info, name)
        count = info.size // dtype.itemsize
        return torch.frombuffer(self._scratch, dtype=dtype, count=count).view(info.shape)

    def read_into(self, name: str, target: Tensor) -> None:
        """Writes the tensor's values into `target`, of the same shape, with its device and dtype. Raises
        `Unavailable`; the values of `target` are then undefined.
        """
        memory = self._memory_of(target, name)
        if memory is None:
            target.copy_(self.read(name))
        else:
            self._fill(memory, self._infos[name], name)

    def read_all_into(self, targets: Iterable[tuple[str, Tensor]]) -> None:
        """Like `read_into`, for many tensors: those that follow each other in the file are read by one system
        call.
        """
        run: list[tuple[str, memoryview]] = []
        end = -1
        for name, target in sorted(targets, key=lambda each: self._infos[each[0]].start):
            memory, info = self._memory_of(target, name), self._infos[name]
            if memory is None:
                target.copy_(self.read(name))
                continue
            if info.start != end or len(run) == _VECTOR:
                self._fill_run(run)
                run = []
            run.append((name, memory))
            end = info.end
        self._fill_run(run)

    def _memory_of(self, target: Tensor, name: str) -> memoryview | None:
        """The memory of `target` if the file's bytes can be read into it unchanged; otherwise None."""
        info = self._infos[name]
        if not (info.size and target.is_cpu and target.is_contiguous()):
            return None
        if target.dtype != _torch_dtype(info, name):
            return None
        # Faster than `numpy()`, which lacks bfloat16. The caller keeps `target` alive until the read ends.
        return memoryview((ctypes.c_char * info.size).from_address(target.data_ptr())).cast("B")

    def _fill_run(self, run: Sequence[tuple[str, memoryview]]) -> None:
        """Reads tensors that follow each other in the file."""
        if not run:
            return
        total = sum(len(memory) for _, memory in run)
        if hasattr(os, "preadv"):
            with suppress(OSError):  # read again one by one, for an error that names the tensor
                start = self._infos[run[0][0]].start
                if os.preadv(self._file.fileno(), [memory for _, memory in run], start) == total:
                    return
        for name, memory in run:
            self._fill(memory, self._infos[name], name)

    def _fill(self, memory: memoryview, info: TensorInfo, name: str) -> None:
        try:
            self._file.seek(info.start)
            while memory:
                count = self._file.readinto(memory)
                if not count:
                    raise OSError("the file became shorter")
                memory = memory[count:]
        except OSError as error:
            raise Unavailable(f"cannot read {name} from {self._file.name}: {error}") from error


def require_device_and_dtype(device: str | device, dtype: dtype | None) -> None:
    """Raises `Invalid` for a device or dtype that torch lacks."""
    import torch

    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise Invalid(f"dtype must be a floating-point dtype of torch, such as torch.bfloat16, not {dtype!r}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise Invalid(f"torch has no device {device!r} here: {str(error).splitlines()[0]}") from error


def _tensor_view(memory: mmap.mmap, info: TensorInfo, name: str) -> Tensor:
    import torch

    kind = _torch_dtype(info, name)
    if not info.size:
        return torch.empty(info.shape, dtype=kind)
    _require_within(info, name, len(memory))
    if info.start % kind.itemsize:  # the format allows this alignment, vector instructions may not
        data = bytearray(memory[info.start : info.start + info.size])
        return torch.frombuffer(data, dtype=kind).view(info.shape)
    count = info.size // kind.itemsize
    return torch.frombuffer(memory, dtype=kind, count=count, offset=info.start).view(info.shape)


def _torch_dtype(info: TensorInfo, name: str) -> dtype:
    import torch

    kind = _dtype_named(info.dtype)
    if kind is None:
        raise Unsupported(f"{name} is {info.dtype}, which torch {torch.__version__} does not support")
    return kind


@cache
def _dtype_named(word: str) -> dtype | None:
    import torch

    known = _WORDS.get(word)
    kind: dtype | None = getattr(torch, known, None) if known else None
    return kind


def _require_within(info: TensorInfo, name: str, size: int) -> None:
    if info.end > size:
        raise Invalid(f"{name} ends after the file's end; the file may have been replaced while it was read")
