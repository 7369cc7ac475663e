"""The arguments of a formula as numpy arrays, read on demand (`AdapterTensors` reads torch tensors)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import TensorInfo
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.tensors.kernel import DEEP, THIN
from adaptry.compute.tensors.llvm_kernel import product, rotated
from adaptry.compute.tensors.stored_array import READABLE, as_array
from adaptry.compute.tensors.weighted_products import weighted_products
from adaptry.core.errors import InvalidWeights
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True)
class StoredModule:
    """The tensors of one module of one adapter; `dtype` is the dtype of the base's weight."""

    adapter: Adapter
    module: ModuleSpec
    dtype: str
    orientation: str = "linear"

    @property
    def config(self) -> AdapterConfig:
        return self.adapter.config

    @property
    def is_readable(self) -> bool:
        """Whether all of its tensors have dtypes that can be read as arrays."""
        return all(self.adapter.tensors[name].dtype in READABLE for name in self._names.values())

    def __contains__(self, role: str) -> bool:
        return role in self._names

    def __getitem__(self, role: str) -> NDArray[Any]:
        """The tensor of a role. Raises `KeyError` for a role that the module lacks, `InvalidWeights`."""
        info = self._info(role)
        return self._read(role, 0, info.size, info.shape)

    def rows(self, role: str, first: int, last: int) -> NDArray[Any]:
        """Entries [first, last) along the first dimension."""
        info = self._info(role)
        each = info.size // info.shape[0]
        return self._read(role, first * each, (last - first) * each, (last - first, *info.shape[1:]))

    def _read(self, role: str, begin: int, size: int, shape: tuple[int, ...]) -> NDArray[Any]:
        info = self._info(role)
        data = self.adapter.content.read(self.adapter.format.weights, info.start + begin, size)
        if len(data) != size:
            raise InvalidWeights(
                f"the adapter's {self._names[role]} became shorter while it was read; is it being written?"
            )
        return as_array(data, info.dtype, shape)

    def shape(self, role: str) -> tuple[int, ...]:
        """The shape of a role's tensor. Raises `KeyError` for a role that the module lacks."""
        return self._info(role).shape

    def multiplies(self, up: tuple[int, ...], down: tuple[int, ...]) -> bool:
        """Whether compiled code sums a product of matrices of these shapes in the order that torch does."""
        (rows, rank), (inner, columns) = up, down
        return rank == inner and 1 <= rank <= DEEP and min(rows, columns) >= THIN

    def product(self, up: str, down: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """Rows of the matrix product of two roles in float32."""
        return product(self[up][rows], self[down])

    def weighted_products(
        self, ups: NDArray[np.float32], down: NDArray[np.float32], weights: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Σₙ (ups[:, n] · down) ∘ weights[n], with ups [rows, n, r]."""
        return weighted_products(ups, down, weights)

    def rotated(self, rows: NDArray[np.float32], blocks: NDArray[np.float32]) -> NDArray[np.float32]:
        """rows [n, in] times the matrix with `blocks` [in/b, b, b] on its diagonal."""
        return rotated(rows, blocks)

    def rounded(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rounded to nearest even in the base's dtype; a NaN stays a NaN."""
        if self.dtype == "F32":
            return values
        if self.dtype == "F16":
            return values.astype(np.float16).astype(np.float32)
        bits = np.ascontiguousarray(values).view(np.uint32)
        rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) & np.uint32(0xFFFF0000)
        return np.where(np.isnan(values), values, rounded.view(np.float32))

    def _info(self, role: str) -> TensorInfo:
        return self.adapter.tensors[self._names[role]]

    @property
    def _names(self) -> Mapping[str, str]:
        return {**self.adapter.spec.shared, **self.module.tensors}
