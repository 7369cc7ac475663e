"""Sign elections in compiled code give the same numbers as the torch functions that they replace."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from adaptry.compute.combining import COMBINE_METHODS
from adaptry.compute.combining.compiled_election import elected_rows
from adaptry.compute.combining.dare import dropout_prunes
from adaptry.compute.combining.dense_rows import rows_of
from adaptry.compute.combining.method import CombineInputs
from adaptry.compute.combining.pruning import magnitude_prunes
from adaptry.compute.combining.sign_election import fuse_by_election
from adaptry.compute.combining.sparsity import magnitude
from adaptry.compute.tensors.lowrank import Factors
from adaptry.compute.tensors.twister_ir import UniformNumbers

OUT, IN = 1003, 2112  # several blocks


def inputs_of(name: str, updates: list[Factors], weights: list[float], **values: Any) -> CombineInputs:
    """(`Any`: a parameter's value.)"""
    checked = COMBINE_METHODS[name].check_values(values)
    return CombineInputs(updates, weights, checked, lambda place: torch.Generator().manual_seed(7 + place))


def updates_of(count: int, *, whole: bool = False) -> list[Factors]:
    """Random updates; if their factors are whole numbers, many elements are equal, and many are zero."""
    torch.manual_seed(0)
    pairs = [(torch.randn(OUT, 5), torch.randn(5, IN)) for _ in range(count)]
    if whole:
        pairs = [(up.round(), down.round()) for up, down in pairs]
    return [Factors(up, down, 0.7) for up, down in pairs]


def by_torch(name: str, inputs: CombineInputs) -> Tensor:
    prunes = magnitude_prunes(inputs) if name == "ties" else dropout_prunes(inputs)
    whole = 0, slice(0, OUT)
    pruned = [prune(rows.block(whole)) for rows, prune in zip(rows_of(inputs), prunes, strict=True)]
    return fuse_by_election(inputs)(torch.stack(pruned))


def compiled(name: str, inputs: CombineInputs) -> Tensor:
    prunes = magnitude_prunes(inputs) if name == "ties" else dropout_prunes(inputs)
    found = elected_rows(rows_of(inputs), prunes, fuse_by_election(inputs))
    assert found is not None
    return found[0]


@pytest.mark.parametrize("name", ["ties", "dare_ties"])
@pytest.mark.parametrize(
    ("sign", "divide"),
    list(itertools.product(("weighted", "unweighted", "frequency"), ("count", "weights", "none"))),
)
def test_an_election_gives_the_numbers_of_torch(name: str, sign: str, divide: str) -> None:
    for count, weights in ((2, [1.0, 1.0]), (2, [1.0, -0.6]), (3, [0.3, 1.0, 0.9])):
        inputs = inputs_of(
            name,
            updates_of(count, whole=True),
            weights,
            sign=sign,
            divide=divide,
            density=0.3,
            **{"lambda": 0.7},
        )
        assert torch.equal(compiled(name, inputs), by_torch(name, inputs))


@pytest.mark.parametrize(("name", "values"), [
    ("ties", {"density": 1e-9}),
    ("ties", {"density": 1.0}),
    ("dare_ties", {"density": 1e-3}),
    ("dare_ties", {"density": 0.7, "rescale": "none"}),
])  # fmt: skip
def test_extreme_densities_give_the_numbers_of_torch(name: str, values: dict[str, Any]) -> None:
    inputs = inputs_of(name, updates_of(8), [1.0] * 8, **values)

    assert torch.equal(compiled(name, inputs), by_torch(name, inputs))


def test_random_numbers_are_those_of_torch() -> None:
    for seed in (0, 5, 2**40 + 17):
        source = UniformNumbers(seed)
        found = (
            torch.from_numpy(source.take(96).astype("int64")),
            torch.from_numpy(source.take(2000).astype("int64")),
        )

        drawn = torch.rand(2096, generator=torch.Generator().manual_seed(seed))

        assert torch.equal(torch.cat(found).float() / 2**24, drawn)


@pytest.mark.parametrize("place", [1, 2, 1000, OUT * IN // 2, OUT * IN])
def test_the_threshold_is_the_exact_order_statistic_also_among_equal_magnitudes(place: int) -> None:
    (update,) = updates_of(1, whole=True)
    (rows,) = rows_of(inputs_of("ties", [update], [1.0]))
    dense = update.with_unit_scale().dense()

    assert magnitude([part.small_blocks for part in rows.parts()], place) == float(
        dense.abs().flatten().sort(descending=True).values[place - 1]
    )
