"""Sums of products whose columns are weighted, in compiled code: Σₙ (Bₙ·A) ∘ vₙ, with one A for all terms."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from adaptry.compute.tensors.llvm_ir import WIDTH, compile_once, rows_at_once
from adaptry.compute.tensors.packed_factors import require_shape
from adaptry.compute.tensors.weighted_ir import weighted_source
from adaptry.core.compiled_module import CompiledModule

Floats = NDArray[np.float32]


def weighted_products(ups: Floats, down: Floats, weights: Floats) -> Floats:
    """Σₙ (ups[:, n] · down) ∘ weights[n], with ups [rows, n, r], down [r, columns] and weights [n, columns].

    Computed in float32: each product is summed rank by rank, then the products term by term; so the bits are
    the same on every processor. Raises `InvalidWeights` if the shapes do not fit.
    """
    rows, terms, ranks = ups.shape
    columns = down.shape[1]
    require_shape(down.shape, (ranks, columns))
    require_shape(weights.shape, (terms, columns))
    if not ups.size or not columns:  # the compiled loops run at least once
        return np.zeros((rows, columns), np.float32)
    tiles, padding = -(-columns // WIDTH), -rows % rows_at_once()
    up = np.ascontiguousarray(np.pad(ups, ((0, padding), (0, 0), (0, 0))) if padding else ups)
    found = np.empty((len(up), tiles * WIDTH), np.float32)
    arrays = _in_tiles(down, tiles), _in_tiles(weights, tiles), up, found
    _program().run(*(each.ctypes.data for each in arrays), len(up), tiles, ranks, terms)
    return found[:rows, :columns]


def _in_tiles(rows: Floats, tiles: int) -> Floats:
    """The matrix [n, columns] as [tiles, n, 32], with zeros at the end."""
    padded = np.pad(rows, ((0, 0), (0, tiles * WIDTH - rows.shape[1])))
    return np.ascontiguousarray(padded.reshape(len(rows), tiles, WIDTH).transpose(1, 0, 2))


class _Program:
    def __init__(self) -> None:
        self._module = CompiledModule(weighted_source(rows_at_once()))
        self.run = self._module.function("weighted", *[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 4)


_program = compile_once(_Program)
