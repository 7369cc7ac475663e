"""The kernel for an accelerator: copies a block to the device, merges it there in torch, and copies it back.

The steps are those on the CPU. Since the device sums a product in its own order, results agree within
rounding and not bit for bit (`docs/merging.md` has the measured differences).
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import torch

from adaptry.compute.tensors.kernel import KernelWeight, LoraTerm, MergeKernel
from adaptry.compute.tensors.torch_kernel import DTYPES, StackedTerms, stack_terms

BLOCK = 64 << 20
"""Bytes of W per block: enough to use the full bandwidth of an accelerator's link."""


class DeviceKernel(MergeKernel):
    """`device` is torch's name of the device: `cuda`, `cuda:1`, `mps`."""

    def __init__(self, capacity: int, device: str) -> None:
        self.source = memoryview(mmap.mmap(-1, capacity))
        self._device = torch.device(device)
        self._weight = KernelWeight("F32", "F32", 0, 0)
        self._update: StackedTerms | None = None

    @staticmethod
    def supports(weight: KernelWeight, rank: int) -> bool:
        return weight.source_dtype in DTYPES and weight.dtype in DTYPES

    @torch.inference_mode()
    def begin(self, weight: KernelWeight, terms: Sequence[LoraTerm]) -> None:
        self._weight = weight
        self._update = stack_terms(terms, weight.is_transposed, self._device) if terms else None

    @torch.inference_mode()
    def merge_rows(self, first: int, rows: int) -> memoryview:
        weight = self._weight
        stored = torch.frombuffer(
            self.source, dtype=DTYPES[weight.source_dtype], count=rows * weight.columns
        ).view(rows, weight.columns)
        image = stored.to(self._device, torch.float32)
        if self._update is not None:
            left, right = self._update.sides(first, rows)
            image = image + torch.mm(left, right) * self._update.scale
        result = image.to(DTYPES[weight.dtype]).cpu().contiguous()
        return memoryview(result.view(torch.uint8).numpy().tobytes())
