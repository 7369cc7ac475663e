"""Selects the elements of an update that are kept: the largest, a band of magnitudes, or random ones.

Each function creates a `PruneFunction` for one update. Magnitudes are compared with an exact order statistic.
All elements with exactly that magnitude are kept, so the selection depends only on values, and not on the
order of a sort. Random numbers come from the given generator, for the rows in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn.functional import hardshrink

from adaptry.compute.combining.compiled_products import has_compiler
from adaptry.compute.combining.dense_rows import DenseRows, PruneFunction
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from adaptry.compute.tensors.magnitude_ir import CompiledMagnitudes

LANES = 8  # elements that compiled code takes together
BlockSource = Callable[[], Iterable[Tensor]]
"""Float32 blocks, the same each time, each valid until the next one."""
_COARSE = 17  # bits dropped of a float32's 31: bins of a 64th of an octave
_TINY = 1e-7  # smaller sums of magnitudes give no factor, as in mergekit


def keep_all(block: Tensor) -> Tensor:
    """The block itself, [rows, in] in any dtype, and not a copy."""
    return block


@dataclass(frozen=True, slots=True)
class MagnitudeThreshold:
    """A pruning that keeps elements of at least a magnitude."""

    minimum: float

    def __call__(self, block: Tensor) -> Tensor:
        return _at_least(block, self.minimum)


@dataclass(frozen=True, slots=True)
class RandomMask:
    """A pruning that keeps each element with a probability, and may divide the element by that
    probability.
    """

    generator: Generator
    density: float
    is_divided: bool = False

    def __call__(self, block: Tensor) -> Tensor:
        kept = block.mul_(torch.rand(block.shape, generator=self.generator) < self.density)
        return kept.div_(self.density) if self.is_divided else kept


def keep_largest(rows: DenseRows, density: float) -> PruneFunction:
    """Keeps the `density · n` largest magnitudes: at least one, but none if the density is 0."""
    if density >= 1:
        return keep_all
    if density <= 0:
        return torch.zeros_like
    parts = [part.small_blocks for part in rows.parts()]
    return MagnitudeThreshold(magnitude(parts, max(1, int(density * rows.elements))))


def keep_band(rows: DenseRows, density: float, gamma: float) -> PruneFunction:
    """Drops the `gamma · n` largest magnitudes (fewer if density requires it) and keeps the next `density ·
    n`.
    """
    if density >= 1:
        return keep_all
    count = rows.elements
    kept = int(density * count)
    if kept == 0:
        return torch.zeros_like
    above = min(int(gamma * count), count - kept)
    minimum = magnitude([rows.blocks], above + kept)
    maximum = magnitude([rows.blocks], above + 1)

    def prune(block: Tensor) -> Tensor:
        stays = _at_least(block, minimum)
        return stays.sub_(hardshrink(stays, maximum))

    return prune


def drop_at_random(generator: Generator, density: float, *, is_divided: bool = False) -> PruneFunction:
    """Keeps each element with probability `density`, and may divide it by `density`."""
    return keep_all if density >= 1 else RandomMask(generator, density, is_divided)


def drop_by_magnitude_rank(
    generator: Generator, density: float, epsilon: float, by_probability: bool
) -> PruneFunction:
    """Keeps an element with a probability that rises linearly with its rank among the magnitudes of its row,
    from `density − ε/2` to `density + ε/2`. `by_probability` divides each kept element by its probability.
    """
    if density >= 1:
        return keep_all
    low, high = max(0.0, density - epsilon / 2), min(1.0, density + epsilon / 2)

    def prune(block: Tensor) -> Tensor:
        width = block.shape[1]
        ramp = torch.linspace(low, high, width) if width > 1 else torch.full((1,), density)
        order = block.abs().argsort(dim=1)
        chance = torch.empty_like(block).scatter_(1, order, ramp.expand_as(block))
        is_kept = torch.rand(block.shape, generator=generator) < chance
        if by_probability:
            return torch.where(is_kept, block / chance, 0.0)
        return block.mul_(is_kept)

    return prune


def rescale_l1(rows: DenseRows, prune: Callable[[], PruneFunction]) -> PruneFunction:
    """A pruning that preserves Σ|δ|: a first pass computes the factor. `prune` must be deterministic."""
    before = after = 0.0
    tried = prune()
    for block in rows.blocks():
        before += float(block.abs().sum(dtype=torch.float64))
        after += float(tried(block).abs().sum(dtype=torch.float64))
    factor = before / after if min(before, after) >= _TINY else 1.0
    final = prune()
    return lambda block: final(block) * factor


def rescale_l1_exactly(rows: DenseRows, prune: PruneFunction) -> PruneFunction:
    """Like `rescale_l1`, for a pruning without random numbers."""
    return rescale_l1(rows, lambda: prune)


def magnitude(parts: Sequence[BlockSource], place: int) -> float:
    """The `place`-th largest magnitude (from 1) of all elements of the parts' blocks, exactly.

    A first pass counts magnitudes by their leading bits, a second collects those in the relevant bin, so only
    a block and a bin of each part are in memory. Each part has a thread.
    """
    with ThreadPoolExecutor(len(parts)) as pool:
        counts = list(pool.map(lambda blocks: _counted(blocks()), parts))
        total = torch.stack(counts).sum(dim=0)
        from_above = total.flip(0).cumsum(0)
        beyond = int(torch.searchsorted(from_above, place))
        inside = place - (int(from_above[beyond - 1]) if beyond else 0)
        wanted = len(total) - 1 - beyond
        sizes = [int(each[wanted]) for each in counts]
        found = pool.map(lambda blocks, size: _collected(blocks(), wanted, size), parts, sizes)
        members = torch.cat(list(found))
    return float(members.kthvalue(len(members) - inside + 1).values)


def _counted(blocks: Iterable[Tensor]) -> Tensor:
    """The number of elements in each bin."""
    compiled, counts = _compiled_magnitudes(), torch.zeros(1 << (31 - _COARSE), dtype=torch.int32)
    total = torch.zeros(len(counts), dtype=torch.int64)
    for block in blocks:
        if compiled is None or block.numel() % LANES or not block.is_contiguous():
            total += torch.bincount(_bins(block), minlength=len(counts))
        else:
            compiled.count(block.data_ptr(), block.numel(), _COARSE, counts.data_ptr())
            total += counts
            counts.zero_()
    return total


def _collected(blocks: Iterable[Tensor], wanted: int, count: int) -> Tensor:
    """The `count` magnitudes in the bin `wanted`."""
    compiled, size = _compiled_magnitudes(), torch.zeros(1, dtype=torch.int64)
    found = torch.empty(count + 1)  # compiled code writes each element before it tests it
    for block in blocks:
        if compiled is None or block.numel() % LANES or not block.is_contiguous():
            members = block.abs().flatten()[_bins(block) == wanted]
            found[int(size) : int(size) + len(members)] = members
            size += len(members)
        else:
            sizes = block.data_ptr(), block.numel(), _COARSE, wanted
            compiled.collect(*sizes, found.data_ptr(), size.data_ptr())
    return found[:count]


def _compiled_magnitudes() -> CompiledMagnitudes | None:
    """The compiled loops; None without a compiler."""
    if not has_compiler():
        return None
    from adaptry.compute.tensors.magnitude_ir import compiled_magnitudes

    return compiled_magnitudes()


def _bins(block: Tensor) -> Tensor:
    return block.abs().view(torch.int32).flatten() >> _COARSE


def _at_least(block: Tensor, minimum: float) -> Tensor:
    """The block with only elements of magnitude `minimum` or more (`hardshrink` keeps those above its
    bound).
    """
    if minimum == 0:
        return block
    bound = torch.nextafter(torch.tensor(minimum), torch.tensor(0.0))
    return hardshrink(block, float(bound))
