"""Elections of pruned updates in compiled code, in blocks that stay in a processor's cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptry.compute.combining.compiled_products import can_compile, product_blocks
from adaptry.compute.combining.sign_election import Election
from adaptry.compute.combining.sparsity import MagnitudeThreshold, RandomMask, keep_all

if TYPE_CHECKING:
    from adaptry.compute.combining.dense_rows import DenseRows, FuseFunction, PruneFunction

_MAX_UPDATES = 8  # updates; torch adds more than 16 in another order


def elected_rows(
    updates: Sequence[DenseRows], prunes: Sequence[PruneFunction], fuse: FuseFunction
) -> Tensor | None:
    """The fused blocks, [E, out, in] in float32; None if one of these functions has no compiled form."""
    if not isinstance(fuse, Election) or not 2 <= len(updates) <= _MAX_UPDATES:
        return None
    if not all(can_compile(each.up, each.down) for each in updates):
        return None
    if all(isinstance(prune, MagnitudeThreshold) or prune is keep_all for prune in prunes):
        return _elected(updates, fuse, _numbers(fuse, [_least(prune) for prune in prunes]), [])
    if all(isinstance(prune, RandomMask) for prune in prunes):
        return _elected_at_random(updates, [prune for prune in prunes if isinstance(prune, RandomMask)], fuse)
    return None


def _least(prune: PruneFunction) -> float:
    return prune.minimum if isinstance(prune, MagnitudeThreshold) else 0.0


def _elected_at_random(updates: Sequence[DenseRows], prunes: Sequence[RandomMask], fuse: Election) -> Tensor:
    from adaptry.compute.tensors.twister_ir import BITS

    limits = [math.ceil(float(np.float32(prune.density)) * (1 << BITS)) for prune in prunes]
    bounds = np.array(limits, np.int32).view(np.float32)
    numbers = _numbers(fuse, list(bounds), prunes[0].density if prunes[0].is_divided else 1.0)
    return _elected(updates, fuse, numbers, [prune.generator.initial_seed() for prune in prunes])


def _numbers(fuse: Election, bounds: Sequence[float], divisor: float = 1.0) -> NDArray[np.float32]:
    numbers = np.empty(2 * len(bounds) + 2, np.float32)
    numbers[: len(bounds)], numbers[-2:] = fuse.weights, (divisor, fuse.scale)
    numbers[len(bounds) : -2] = bounds
    return numbers


def _elected(
    updates: Sequence[DenseRows], fuse: Election, numbers: NDArray[np.float32], seeds: Sequence[int]
) -> Tensor:
    """The elected rows. `seeds` are those of the generators that decide what is kept; empty if magnitudes
    decide.
    """
    from adaptry.compute.tensors.election_ir import ElectionKind, compiled_election
    from adaptry.compute.tensors.twister_ir import UniformNumbers

    election = compiled_election(
        ElectionKind(
            count=len(updates),
            pruned="random" if seeds else "small",
            is_divided=bool(numbers[-2] != 1),
            is_weighted=any(weight != 1 for weight in fuse.weights),
            is_scaled=fuse.scale != 1,
            sign=fuse.sign,
            divide=fuse.divide,
        )
    )
    result = np.empty(updates[0].shape, np.float32)
    random = [UniformNumbers(seed) for seed in seeds]

    def elect(target: NDArray[np.float32], *parts: DenseRows) -> None:
        done = 0
        for blocks in zip(*(product_blocks(each.up, each.down) for each in parts), strict=True):
            count = blocks[0].size
            words = [source.take(count) for source in random]
            elements = [block.ctypes.data for block in blocks]
            election.run(
                elements, [each.ctypes.data for each in words], numbers, target[done:].ctypes.data, count
            )
            done += count

    if random:  # random numbers are drawn in the order of the elements
        elect(result.reshape(-1), *updates)
    else:
        divided = [each.parts() for each in updates]
        ends = np.cumsum([part.elements for part in divided[0]])
        with ThreadPoolExecutor(len(divided[0])) as pool:
            list(pool.map(elect, np.split(result.reshape(-1), ends[:-1]), *divided))
    return torch.from_numpy(result)
