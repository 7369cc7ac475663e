"""The kernel in torch: the reference, used if no faster kernel is installed or supports the weight.

We measured which torch calls round like the separate steps: `add(alpha=s)` and `addmm(alpha=s)` use an fma
and differ in the last bit unless s is a power of two; `addcmul(W, BA, one, value=s)` is safe, since it
computes s · BA first, and an fma with the factor one rounds like an addition.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from adaptry.compute.tensors.kernel import DEEP, THIN, KernelWeight, LoraTerm, MergeKernel, StoredMatrix
from adaptry.core.lazy_dataclass import dataclass

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class TorchKernel(MergeKernel):
    """The kernel for the CPU. Threads run kernels in parallel, so limit torch to one thread each
    (`single_torch_threads`)."""

    def __init__(self, capacity: int) -> None:
        """`capacity`: size in bytes of the largest block (`block_buffer_size`)."""
        self.source = memoryview(mmap.mmap(-1, capacity))
        self._result = memoryview(mmap.mmap(-1, 2 * capacity))  # a 2-byte weight may be widened
        self._wide = torch.empty(capacity // 2)
        self._delta = torch.empty(capacity // 2)
        self._one = torch.ones(())
        self._weight = KernelWeight("F32", "F32", 0, 0)
        self._update: StackedTerms | None = None

    @staticmethod
    def supports(weight: KernelWeight, rank: int) -> bool:
        return weight.source_dtype in DTYPES and weight.dtype in DTYPES

    @torch.inference_mode()
    def begin(self, weight: KernelWeight, terms: Sequence[LoraTerm]) -> None:
        self._weight = weight
        self._update = stack_terms(terms, weight.is_transposed) if terms else None

    @torch.inference_mode()
    def merge_rows(self, first: int, rows: int) -> memoryview:
        shape = rows, self._weight.columns
        stored = _view(self.source, self._weight.source_dtype, shape)
        if self._weight.source_dtype == "F32":
            image = stored
        else:
            image = self._wide[: rows * shape[1]].view(shape)
            image.copy_(stored)
        if self._update is not None:
            self._add(image, self._update, first)
        if self._weight.dtype == self._weight.source_dtype == "F32":
            return self.source[: image.nbytes]
        result = _view(self._result, self._weight.dtype, shape)
        result.copy_(image)
        return self._result[: result.nbytes]

    def _add(self, image: Tensor, update: StackedTerms, first: int) -> None:
        """image [rows, columns] fp32 += scale · product."""
        left, right = update.sides(first, image.shape[0])
        delta = self._delta[: image.numel()].view(image.shape)
        if update.is_transposed and min(image.shape) < THIN:
            # A product this thin is summed in another order: compute the product that PEFT computes, and
            # transpose it.
            image.add_((torch.mm(right.t(), left.t()) * update.scale).t())
        elif _may_fuse(left, right, update.scale):
            image.addmm_(left, right, alpha=update.scale)
        else:
            torch.mm(left, right, out=delta)
            image.addcmul_(delta, self._one, value=update.scale)


@dataclass(frozen=True, slots=True)
class StackedTerms:
    """The sum of a weight's terms: scale · up @ down, in float32."""

    up: Tensor
    down: Tensor
    scale: float
    is_transposed: bool

    def sides(self, first: int, rows: int) -> tuple[Tensor, Tensor]:
        """The two matrices, [rows, r] and [r, columns] in float32, whose product is the update of rows
        [first, first + rows) of the weight as stored."""
        if self.is_transposed:
            return self.down.narrow(1, first, rows).t(), self.up.t()
        return self.up.narrow(0, first, rows), self.down


def stack_terms(
    terms: Sequence[LoraTerm], is_transposed: bool, device: str | torch.device = "cpu"
) -> StackedTerms:
    """Stacks the terms. A single term keeps its scale separate, since PEFT scales the product; several are
    scaled and stacked."""
    ups = [_wide(term.up).to(device) for term in terms]
    downs = [_wide(term.down).to(device) for term in terms]
    if len(terms) == 1:
        return StackedTerms(ups[0], downs[0], terms[0].scale, is_transposed)
    scaled = [up * term.scale for up, term in zip(ups, terms, strict=True)]
    return StackedTerms(torch.cat(scaled, dim=1), torch.cat(downs), 1.0, is_transposed)


@contextlib.contextmanager
def single_torch_threads() -> Iterator[None]:
    """Limits torch to one thread during the block, since its threads would compete with the kernels'.
    Restores the setting afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _wide(factor: StoredMatrix) -> Tensor:
    """The factor in fp32, in which PEFT holds it (`autocast_adapter_dtype`)."""
    stored = torch.frombuffer(bytearray(factor.data), dtype=DTYPES[factor.dtype])
    return stored.view(factor.shape).to(torch.float32)


def _view(memory: memoryview, dtype: str, shape: tuple[int, int]) -> Tensor:
    return torch.frombuffer(memory, dtype=DTYPES[dtype], count=shape[0] * shape[1]).view(shape)


def _may_fuse(left: Tensor, right: Tensor, scale: float) -> bool:
    """Whether `addmm(alpha=scale)` rounds as the three steps do.

    It does if scaling is exact (a power of two, far from overflow and underflow) and the product is complete
    before it is added to W: at rank 1, MKL adds the single product with an fma; at a high rank, it adds
    partial sums to W one after another; and a thin product starts from W.
    """
    is_matrix = min(left.shape[0], right.shape[1]) >= THIN
    is_exact = math.frexp(scale)[0] == 0.5 and 2.0**-14 <= scale <= 2.0**14
    return is_matrix and is_exact and 2 <= left.shape[1] <= DEEP
