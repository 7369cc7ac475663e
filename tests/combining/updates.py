"""Random or dense updates to combine, and a function that runs a combine method as a plan does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st

from adaptry.compute.combining import COMBINE_METHODS
from adaptry.compute.combining.method import CombineInputs
from adaptry.compute.tensors.lowrank import Factors

OUT, WIDTH = 12, 9


def update(
    seed: int,
    rank: int,
    scale: float = 1.0,
    batch: tuple[int, ...] = (),
    shape: tuple[int, int] = (OUT, WIDTH),
) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    up = torch.randn(*batch, shape[0], rank, generator=generator)
    return Factors(up, torch.randn(*batch, rank, shape[1], generator=generator), scale)


def several(count: int, batch: tuple[int, ...] = (), seed: int = 0) -> list[Factors]:
    """Updates with the ranks 1, 2, 3, 1, … and different scales."""
    return [update(seed + place, 1 + place % 3, 0.5 + place / 4, batch) for place in range(count)]


def dense(factors: Factors) -> torch.Tensor:
    """[..., out, in] float64."""
    return factors.double().dense()


def combine(
    name: str,
    updates: Sequence[Factors | None],
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    **values: Any,
) -> torch.Tensor:
    """The result of the method `name`, dense in float64; None stands for an adapter without an update
    here.
    """
    made = factors(name, updates, weights, rank, **values)
    assert made.up.dtype == made.down.dtype == torch.float32
    return dense(made)


def factors(
    name: str,
    updates: Sequence[Factors | None],
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    **values: Any,
) -> Factors:
    """(`Any`: a parameter's value.)"""
    combination = COMBINE_METHODS[name]
    weights = weights or [1.0] * len(updates)
    places = [place for place, each in enumerate(updates) if each is not None and weights[place]]
    made = combination.combine(
        CombineInputs(
            [each for place, each in enumerate(updates) if each is not None and place in places],
            [weights[place] for place in places],
            combination.check_values(values),
            lambda place: torch.Generator().manual_seed(places[place]),
            rank,
            places,
            weights,
            "layer.0",
        )
    )
    assert isinstance(made, Factors)
    return made


def near(made: torch.Tensor, expected: torch.Tensor, relative: float = 2e-6) -> None:
    """Whether they are equal, up to a few roundings to float32 of the largest element."""
    torch.testing.assert_close(made, expected, rtol=0, atol=relative * max(1.0, float(expected.abs().max())))


drawn = st.lists(
    st.builds(
        update,
        seed=st.integers(0, 10_000),
        rank=st.integers(1, 4),
        scale=st.sampled_from([-1.0, 0.25, 1.0, 3.0]),
    ),
    min_size=2,
    max_size=4,
)
"""Two to four updates of one site."""
