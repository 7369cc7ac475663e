"""The arguments of a method's change, read on demand: tensors in float32, shared ones, the module's bias."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING

import torch

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import TensorInfo
from adaptry.adapters.spec import ModuleSpec
from adaptry.core.errors import InvalidWeights
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip

ReadBias = Callable[[], "Tensor | None"]


def as_tensor(data: bytes | bytearray, info: TensorInfo) -> Tensor:
    """Stored bytes as a tensor with `info`'s dtype and shape; shares the memory if that is writable."""
    if not data:
        return torch.empty(info.shape, dtype=DTYPES[info.dtype])
    memory = data if isinstance(data, bytearray) else bytearray(data)
    return torch.frombuffer(memory, dtype=DTYPES[info.dtype]).view(info.shape)


def stored_bytes(tensor: Tensor) -> bytes:
    """The inverse: the bytes of a CPU tensor of any shape and dtype, as in a file (little-endian,
    row-major).
    """
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@dataclass(frozen=True)
class AdapterTensors:
    """The parts of one module of one adapter. Each tensor is read once."""

    adapter: Adapter
    module: ModuleSpec
    orientation: str
    read_bias: ReadBias = lambda: None
    sides: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    _given: Mapping[str, Tensor] = field(default_factory=dict)
    _read: dict[str, Tensor] = field(default_factory=dict)  # shared by the copies of `with_tensors`

    @property
    def config(self) -> AdapterConfig:
        return self.adapter.config

    def __contains__(self, role: str) -> bool:
        return role in self._given or role in self._names

    def __getitem__(self, role: str) -> Tensor:
        """The tensor of a role, in its stored shape: floats as float32, as PEFT holds an adapter
        (`autocast_adapter_dtype`), integers unchanged. Raises `KeyError` for a role that the module lacks.
        """
        if role in self._given:
            return self._given[role]
        if role not in self._read:
            name = self._names[role]
            stored = as_tensor(self.adapter.tensor_bytes(name), self.adapter.tensors[name])
            self._read[role] = stored.float() if stored.is_floating_point() else stored
        return self._read[role]

    @property
    def is_replaced(self) -> bool:
        return self.adapter.spec.replacement_of(f"{self.module.path}.weight") is not None

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> AdapterTensors:
        return replace(self, _given={**self._given, **tensors})

    def bias(self) -> Tensor | None:
        """The module's bias in the base [out], in its stored dtype, or None."""
        return self.read_bias()

    def weight(self) -> Tensor:
        """The module's weight before its change, for a change of its bias, in the shape and dtype in which
        the base stores it: the file's if it has one, else the base's. Raises `InvalidWeights` if the base has
        only a bias.
        """
        weight = self.read_bias()  # while a bias is changed, `beside` is the weight
        if weight is None:
            raise InvalidWeights(f"the base has no weight for {self.module.path}, only a bias")
        own = self.adapter.spec.replacement_of(f"{self.module.path}.weight")
        if own is None:
            return weight
        return as_tensor(self.adapter.tensor_bytes(own.tensor), self.adapter.tensors[own.tensor]).to(
            weight.dtype
        )

    @property
    def _names(self) -> Mapping[str, str]:
        return {**self.adapter.spec.shared, **self.module.tensors}
