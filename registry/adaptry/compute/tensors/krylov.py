"""Leading singular triplets of a dense matrix by block Krylov iteration, with a stopping bound.

Block Golub–Kahan with full reorthogonalisation (Musco and Musco, arXiv 1504.05477): each step multiplies a
few columns by MᵀM in one pass over the matrix, where a full decomposition costs out·in·min(out, in). Passes
over a float32 matrix compute in float32. The columns, the last pass, and steps after the first few, are in
float64. The matrix is always divided in the same way, whatever the number of processors, and random columns
are drawn with a fixed seed, so the same matrix gives the same result.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from adaptry.compute.tensors.torch_kernel import single_torch_threads
from adaptry.core.lazy_dataclass import dataclass

Result = TypeVar("Result")
Triplets = tuple[Tensor, Tensor, Tensor]

TOLERANCE = 1e-7
"""The share of the best approximation's energy that may be missed."""
_OVERSAMPLING = 8  # additional columns, which make the last requested values converge faster
_SEED = 0
_MIN_STEPS = 4  # steps after which the matrix's whole energy is computed for the bound
_STEPS_IN_FLOAT32 = 8  # later steps separate values that float32 cannot distinguish
_ELEMENTS = 1 << 18  # elements per block of rows, which stays in a core's cache
_PARTS = 8  # parts of the rows, and so the maximum number of threads
_WORTH_THREADS = 1 << 21  # elements of the matrix
_MIN_MAGNITUDE, _MAX_MAGNITUDE = (
    1e-12,
    1e12,
)  # so that sums of squares fit into float32
_NOISE = 0.05
"""The norm of the noise that is added to each guess. The residual of an exact singular vector is zero, so
without noise the iteration would end before it finds larger values, whose vectors the guess may lack
completely.
"""


def leading_triplets(matrix: Tensor, rank: int, guess: Tensor | None = None) -> tuple[Triplets, float] | None:
    """left [out, k], values [k] in descending order, right [k, in], all float64, of a `matrix` [out, in] of
    any floating-point dtype, and its `energy_of`; k = `rank`. They are the decomposition of the projection of
    the matrix on `right`. The rows of `guess` [n, in], n ≥ 0, are close to right singular vectors.

    None if the iteration would be slower than a full decomposition, or did not converge; the caller then
    decomposes completely.
    """
    columns = rank + _OVERSAMPLING
    maximum = min(matrix.shape) // 3
    if columns * 2 > maximum:
        return None
    with _passes(matrix) as passes:
        block, is_converged = _first_block(matrix.shape[1], rank, guess), False
        if matrix.dtype == torch.float32 and _is_squared_by_float32(matrix):
            few = min(maximum, _STEPS_IN_FLOAT32 * columns)
            block, is_converged = _iterate(passes, torch.float32, block, rank, few)
        if not is_converged:
            block, is_converged = _iterate(passes, torch.float64, block, rank, maximum)
        if not is_converged:
            return None
        image, energy = passes.project(block[:, :rank])
    left, values, inside = torch.linalg.svd(image, full_matrices=False)
    return (left, values, inside @ block[:, :rank].mT), energy


def energy_of(matrix: Tensor) -> float:
    """‖M‖² (Frobenius) in float64, of a tensor of any shape."""
    return sum((_energy(run) for run in torch.split(matrix.reshape(-1), _ELEMENTS)), 0.0)


def _energy(values: Tensor) -> float:
    flat = values.double().reshape(-1)
    return float(flat @ flat)


def _is_squared_by_float32(matrix: Tensor) -> bool:
    low, high = (float(each) for each in torch.aminmax(matrix))
    return _MIN_MAGNITUDE <= max(-low, high) <= _MAX_MAGNITUDE


def _first_block(width: int, rank: int, guess: Tensor | None) -> Tensor:
    """Orthonormal columns [in, rank + spare]: at most `rank` that are close to the guess, and random ones."""
    known = torch.empty(width, 0) if guess is None else guess[:rank].mT
    generator = torch.Generator().manual_seed(_SEED)
    block = torch.randn(width, rank + _OVERSAMPLING, dtype=torch.float64, generator=generator)
    count = known.shape[1]
    block[:, :count] = known.double() + block[:, :count] * (_NOISE / width**0.5)
    orthonormal: Tensor = torch.linalg.qr(block)[0]
    return orthonormal


@dataclass(frozen=True, slots=True)
class _Passes:
    """Passes over the rows of a matrix [out, in], in parts; with a thread for each processor if `pool`."""

    matrix: Tensor
    pool: ThreadPoolExecutor | None

    def multiply(self, block: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """M·X and MᵀM·X for X [in, k], computed in `dtype`, in float64."""
        columns = block.to(dtype)
        image = columns.new_empty(self.matrix.shape[0], block.shape[1])

        def run(part: slice) -> Tensor:
            total = columns.new_zeros(block.shape[1], self.matrix.shape[1])
            for place, rows in self._rows(part):
                wide = rows.to(dtype)
                torch.mm(wide, columns, out=image[place])
                total.addmm_(image[place].mT, wide)
            return total

        totals = [total.double() for total in self._map(run)]
        return image.double(), torch.stack(totals).sum(dim=0).mT

    def project(self, block: Tensor) -> tuple[Tensor, float]:
        """M·X [out, k] for X [in, k] in float64, and the energy of M."""
        image = block.new_empty(self.matrix.shape[0], block.shape[1])

        def run(part: slice) -> float:
            energy = 0.0
            for place, rows in self._rows(part):
                wide = rows.double()
                torch.mm(wide, block, out=image[place])
                energy += _energy(wide)
            return energy

        return image, sum(self._map(run), 0.0)

    def energy(self) -> float:
        return sum(self._map(lambda part: sum((_energy(rows) for _, rows in self._rows(part)), 0.0)), 0.0)

    def _map(self, run: Callable[[slice], Result]) -> list[Result]:
        height = self.matrix.shape[0]
        cuts = [height * part // _PARTS for part in range(_PARTS + 1)]
        parts = [slice(*ends) for ends in itertools.pairwise(cuts)]
        return list(self.pool.map(run, parts) if self.pool else map(run, parts))

    def _rows(self, part: slice) -> Iterator[tuple[slice, Tensor]]:
        step = max(1, _ELEMENTS // self.matrix.shape[1])
        for start in range(part.start, part.stop, step):
            place = slice(start, min(part.stop, start + step))
            yield place, self.matrix[place]


@contextmanager
def _passes(matrix: Tensor) -> Iterator[_Passes]:
    """Each thread computes with one thread of torch: torch's own threads would wait for each other, and
    change bits. Each thread repeats the setting, because MKL ignores a setting made in another thread.
    """
    with single_torch_threads():
        if matrix.numel() < _WORTH_THREADS:
            yield _Passes(matrix, None)
            return
        with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield _Passes(matrix, pool)


def _iterate(
    passes: _Passes, dtype: torch.dtype, block: Tensor, rank: int, maximum: int
) -> tuple[Tensor, bool]:
    """Orthonormal columns [in, k], computed from k orthonormal ones; the first `rank` span the right singular
    vectors. Also returns whether these are known to keep enough energy. The basis grows to at most `maximum`
    columns.
    """
    columns = block.shape[1]
    basis, images = block, []
    while True:
        image, beyond = passes.multiply(block, dtype)
        images.append(image)
        seen = torch.cat(images, dim=1)  # matrix · basis
        values, vectors = torch.linalg.eigh(seen.mT @ seen)
        values, vectors = values.flip(0), vectors.flip(1)
        block, upper = _orthonormal(beyond, basis)
        residuals = (upper @ vectors[-columns:, :rank]).norm(dim=0)
        kept = float(values[:rank].sum())
        is_converged = _missed(values, residuals, rank) <= TOLERANCE * kept
        if not is_converged and len(images) == _MIN_STEPS:  # if the rank is low, there may be nothing left
            is_converged = passes.energy() - kept <= TOLERANCE * kept
        if is_converged or basis.shape[1] + columns > maximum:
            return basis @ vectors[:, :columns], is_converged
        basis = torch.cat([basis, block], dim=1)


def _orthonormal(columns: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal columns, orthogonal to the basis, and the triangular factor.

    Orthogonalising twice is sufficient, even if only rounding errors are left after the first time.
    """
    triangle = None
    for _ in range(2):
        columns = columns - basis @ (basis.mT @ columns)
        columns, upper = torch.linalg.qr(columns)
        triangle = upper if triangle is None else upper @ triangle
    assert triangle is not None
    return columns, triangle


def _missed(values: Tensor, residuals: Tensor, rank: int) -> float:
    """The maximum error of the first `rank` Ritz values (squared singular values): the residual or, by Kato
    and Temple, its square divided by the gap to the other values.
    """
    gaps = (values[:rank] - values[rank]).clamp(min=torch.finfo(values.dtype).tiny)
    return float(torch.minimum(residuals, residuals.square() / gaps).sum())
