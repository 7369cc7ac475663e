"""Converts the experts of a layer between one pair of factors per expert and one pair for all of them.

In the fused form, the factors of expert e are rows e·r + k of A and columns k·E + e of B, and a gate_up
parameter has the rows of the gate and then those of the up projection (PEFT `ParamWrapper`). Splitting
repeats A for gate and up. Fusing places the two on a diagonal, at twice the rank, like PEFT 0.19. Neither
changes a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    Pair = tuple[Tensor, Tensor]
    """A [r, in] and B [out, r] as in a file."""


def split_expert(fused: Pair, index: int, count: int, rows: tuple[int, int]) -> Pair:
    """The factors A [r, in] and B [end − first, r] of expert `index`, for the `rows` (first, end) of its
    matrix.
    """
    down, up = fused
    rank = down.shape[0] // count
    own = down[index * rank : (index + 1) * rank]
    return own.clone(), up[slice(*rows), index::count].clone()


def padded(pair: Pair, rank: int) -> Pair:
    """The same product as factors A [rank, in] and B [out, rank], padded with zeros."""
    from torch.nn.functional import pad

    down, up = pair
    added = rank - down.shape[0]
    return pad(down, (0, 0, 0, added)), pad(up, (0, added))


def fuse_experts(experts: Sequence[Mapping[int, Pair]], heights: Sequence[int], width: int) -> Pair:
    """One pair for all experts. `experts[e]` has factors by the position of their part (0: gate, 1: up),
    `heights` are the rows of each part, `width` is the number of inputs. Missing experts and parts are zeros;
    ranks are padded with zeros.
    """
    import torch

    pairs = [pair for parts in experts for pair in parts.values()]
    places = sorted({place for parts in experts for place in parts})
    ranks = {place: max(parts[place][0].shape[0] for parts in experts if place in parts) for place in places}
    total, count = sum(ranks.values()), len(experts)
    down = torch.zeros(count, total, width, dtype=pairs[0][0].dtype)
    up = torch.zeros(count, sum(heights), total, dtype=pairs[0][1].dtype)
    for index, parts in enumerate(experts):
        column = 0
        for place in places:
            if place in parts:
                own_down, own_up = parts[place]
                rank, row = own_down.shape[0], sum(heights[:place])
                down[index, column : column + rank] = own_down
                up[index, row : row + heights[place], column : column + rank] = own_up
            column += ranks[place]
    return down.reshape(count * total, width), up.permute(1, 2, 0).reshape(sum(heights), total * count)
