"""Dense updates in blocks of a few rows, for elementwise methods.

The dense updates of several adapters are never in memory together: a block of rows of each is multiplied out,
processed while it is in the processor's cache, and dropped. Computing a block twice is cheaper than storing
it. Blocks are always cut in the same way, so they always have the same bits. The members of a batch (experts)
are stacked as rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from adaptry.compute.combining.compiled_products import can_compile, product_blocks
from adaptry.compute.combining.method import CombineInputs
from adaptry.compute.tensors.freed_memory import keep_freed_memory
from adaptry.compute.tensors.lowrank import Factors
from adaptry.core.lazy_dataclass import dataclass

_ELEMENTS = 1 << 18  # elements per update and block: 1 MiB; several blocks fit into a core's cache
_PART_ROWS = 64  # minimum number of rows of a part
_WORTH_A_THREAD = 1 << 19  # minimum number of elements of a part

RowBlock = tuple[int, slice]
"""A block: the member of the batch, and its rows."""
PruneFunction = Callable[[Tensor], Tensor]
"""A function that returns a block [rows, in] of one update with some elements set to zero (and others
scaled). It is called in the order of the blocks.
"""
FuseFunction = Callable[[Tensor], Tensor]
"""A function from the blocks of all updates [T, rows, in] to one block [rows, in]; it may overwrite them."""


@dataclass(frozen=True, slots=True)
class DenseRows:
    """An update in blocks of rows: `up` [E, out, r], which includes the scale, and `down` [E, r, in]."""

    up: Tensor
    down: Tensor

    @classmethod
    def from_factors(cls, update: Factors) -> DenseRows:
        folded = update.with_unit_scale()
        return cls(
            folded.up.reshape(-1, *folded.up.shape[-2:]), folded.down.reshape(-1, *folded.down.shape[-2:])
        )

    def scaled_by(self, weight: float) -> DenseRows:
        return DenseRows(self.up * weight, self.down)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.up.shape[0], self.up.shape[1], self.down.shape[2]

    @property
    def elements(self) -> int:
        return self.up.shape[0] * self.up.shape[1] * self.down.shape[2]

    def row_blocks(self) -> Iterator[RowBlock]:
        members, height, width = self.shape
        step = max(1, _ELEMENTS // width)
        for member in range(members):
            for start in range(0, height, step):
                yield member, slice(start, min(height, start + step))

    def parts(self) -> Sequence[DenseRows]:
        """Consecutive parts of the elements, one for each processor if compiled code computes their blocks,
        since it uses only one processor. A batch is divided by members, a single matrix by rows.
        """
        members, height, _ = self.shape
        maximum = os.cpu_count() or 1 if can_compile(self.up, self.down) else 1
        count = min(
            maximum, members if members > 1 else height // _PART_ROWS, self.elements // _WORTH_A_THREAD
        )
        if count < 2:
            return (self,)
        if members == 1:
            return [DenseRows(up, self.down) for up in torch.tensor_split(self.up, count, dim=1)]
        pairs = zip(*(torch.tensor_split(side, count) for side in (self.up, self.down)), strict=True)
        return [DenseRows(up, down) for up, down in pairs]

    def small_blocks(self) -> Iterator[Tensor]:
        """All elements in order, in smaller blocks if compiled code computes them, each valid until the
        next.
        """
        if not can_compile(self.up, self.down):
            return self.blocks()
        return map(torch.from_numpy, product_blocks(self.up, self.down))

    def block(self, place: RowBlock) -> Tensor:
        member, rows = place
        return self.up[member, rows] @ self.down[member]

    def blocks(self) -> Iterator[Tensor]:
        """All blocks in order, [rows, in] each, in float32."""
        return (self.block(place) for place in self.row_blocks())


def combine_rows(inputs: CombineInputs, prunes: Sequence[PruneFunction], fuse: FuseFunction) -> Tensor:
    """Prunes the blocks of each update with its function of `prunes`, and fuses them; [..., out, in] in
    float32.
    """
    from adaptry.compute.combining.compiled_election import elected_rows

    keep_freed_memory()
    updates = rows_of(inputs)
    if (elected := elected_rows(updates, prunes, fuse)) is not None:
        return elected.reshape(*inputs.updates[0].up.shape[:-1], -1)
    result = torch.empty(updates[0].shape)
    for member, rows in updates[0].row_blocks():
        pairs = zip(updates, prunes, strict=True)
        result[member, rows] = fuse(torch.stack([prune(each.block((member, rows))) for each, prune in pairs]))
    return result.reshape(*inputs.updates[0].up.shape[:-1], -1)


def rows_of(inputs: CombineInputs) -> list[DenseRows]:
    return [DenseRows.from_factors(update) for update in inputs.updates]
