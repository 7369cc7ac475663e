"""Combine methods in common axes: computed from factors, compared with the papers' formulas on dense updates
in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adaptry import open_dir
from adaptry.compute.combining.combine import build_combined_adapter
from adaptry.compute.combining.plan import plan_combination
from adaptry.compute.lazy_adapters.deltas import open_adapter_deltas
from adaptry.compute.lazy_adapters.folder_writer import write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.recipes.combine import CombineRecipe
from adaptry.compute.recipes.merge import RecipeInput
from adaptry.compute.tensors.lowrank import Factors

from . import mergekit_library as mergekit
from .updates import combine, dense, drawn, factors, near, several, update

EXPERTS = pytest.mark.parametrize("batch", [(), (3,)], ids=["matrix", "experts"])
ALIGNED = pytest.mark.parametrize("name", ["knots", "core_space"])
EVERY: list[tuple[str, dict[str, Any]]] = [
    ("knots", {"merge": "ties"}),
    ("knots", {"merge": "linear"}),
    ("core_space", {"merge": "ties"}),
    ("core_space", {"merge": "linear", "isotropic": True}),
    ("tsv", {}),
    ("iso_c", {}),
]
NAMES = [" ".join([name, *map(str, values.values())]) for name, values in EVERY]
EACH = pytest.mark.parametrize(("name", "values"), EVERY, ids=NAMES)
WEIGHTS = [1.0, 0.5, -2.0]


def ties(updates: Sequence[torch.Tensor], density: float) -> torch.Tensor:
    """Trims the updates, elects a sign by their sum, and takes the mean of the elements with that sign."""
    trimmed = []
    for each in updates:
        least = each.abs().flatten().sort(descending=True).values[int(density * each.numel()) - 1]
        trimmed.append(torch.where(each.abs() >= least, each, 0))
    stack = torch.stack(trimmed)
    agree = (stack.sign() == stack.sum(0).sign()) & (stack != 0)
    return (stack * agree).sum(0) / agree.sum(0).clamp(min=1)


def triplets(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left[..., :rank], values[..., :rank], right[..., :rank, :]


@EXPERTS
@pytest.mark.parametrize("density", [0.3, 0.6])
def test_knots_trims_and_elects_along_the_axes_of_all_updates_side_by_side(
    density: float, batch: tuple[int, ...]
) -> None:
    updates = several(3, batch)
    thick = [weight * dense(each) for weight, each in zip(WEIGHTS, updates, strict=True)]
    left, values, right = triplets(torch.cat([dense(each) for each in updates], dim=-1), 6)
    blocks = (values.unsqueeze(-1) * right).split(thick[0].shape[-1], dim=-1)
    merged = ties([weight * block for weight, block in zip(WEIGHTS, blocks, strict=True)], density)
    near(combine("knots", updates, WEIGHTS, merge="ties", density=density), left @ merged)


@EXPERTS
@pytest.mark.parametrize("density", [0.3, 0.6])
def test_core_space_trims_and_elects_in_the_bases_of_the_stacked_factors(
    density: float, batch: tuple[int, ...]
) -> None:
    updates = several(3, batch)
    found = [triplets(dense(each), each.rank) for each in updates]
    ups = torch.cat([left * values.sqrt().unsqueeze(-2) for left, values, _ in found], dim=-1)
    downs = torch.cat([values.sqrt().unsqueeze(-1) * right for _, values, right in found], dim=-2)
    left, right = triplets(ups, 6)[0], triplets(downs, 6)[2]
    cores = [weight * left.mT @ dense(each) @ right.mT for weight, each in zip(WEIGHTS, updates, strict=True)]
    expected = left @ ties(cores, density) @ right
    near(combine("core_space", updates, WEIGHTS, merge="ties", density=density), expected)


@EXPERTS
def test_tsv_makes_the_singular_vectors_of_all_updates_orthogonal(batch: tuple[int, ...]) -> None:
    updates = several(3, batch)
    found = [triplets(dense(each), each.rank) for each in updates]
    values = torch.cat([weight * each[1] for weight, each in zip(WEIGHTS, found, strict=True)], dim=-1)
    left, _, left_turn = torch.linalg.svd(torch.cat([each[0] for each in found], dim=-1), full_matrices=False)
    right, _, right_turn = torch.linalg.svd(
        torch.cat([each[2].mT for each in found], dim=-1), full_matrices=False
    )
    expected = (left @ left_turn) * values.unsqueeze(-2) @ (right @ right_turn).mT
    near(combine("tsv", updates, WEIGHTS), expected)


def test_tsv_takes_a_number_of_triplets_of_each_update() -> None:
    updates = several(3)
    first = [triplets(dense(each), 1) for each in updates]
    rank_one = [
        Factors(left.float(), (values.unsqueeze(-1) * right).float()) for left, values, right in first
    ]
    near(combine("tsv", updates, triplets=1), combine("tsv", rank_one))
    assert factors("tsv", updates, triplets=1).rank == 3


def test_tsv_divides_the_available_rank_among_the_updates() -> None:
    updates = [update(seed, 6) for seed in range(3)]
    assert factors("tsv", updates).rank == 9  # each of three updates has 3 of the 9 columns


@EXPERTS
@pytest.mark.parametrize("rank", [None, 4])
def test_iso_c_makes_the_singular_values_of_the_sum_equal(rank: int | None, batch: tuple[int, ...]) -> None:
    updates = several(3, batch)
    total = sum(weight * dense(each) for weight, each in zip(WEIGHTS, updates, strict=True))
    assert isinstance(total, torch.Tensor)
    left, values, right = triplets(total, rank or 6)
    expected = values.mean(-1, keepdim=True).unsqueeze(-1) * (left @ right)
    near(combine("iso_c", updates, WEIGHTS, rank=rank), expected)


def test_iso_c_omits_singular_values_below_its_floor() -> None:
    left, right = torch.eye(12)[:, :3], torch.eye(9)[:3]
    made = combine("iso_c", [Factors(left * torch.tensor([4.0, 2.0, 0.1]), right)], floor=0.1)
    near(made, (left[:, :2] @ right[:2] * 3.0).double())


def test_the_core_can_have_a_flat_spectrum_too() -> None:
    updates = several(3)
    near(combine("core_space", updates, merge="linear", isotropic=True), combine("iso_c", updates))
    made = torch.linalg.svdvals(combine("core_space", updates, merge="ties", isotropic=True))
    assert float(made[5]) == pytest.approx(float(made[0]), rel=1e-5)


@ALIGNED
@given(updates=drawn, weights=st.lists(st.sampled_from([-1.5, 0.5, 1.0]), min_size=4, max_size=4))
@settings(max_examples=30, deadline=None)
def test_conversion_to_the_axes_and_back_is_lossless(
    name: str, updates: list[Factors], weights: list[float]
) -> None:
    weights = weights[: len(updates)]
    total = combine("linear", updates, weights)
    near(combine(name, updates, weights, merge="linear"), total, 1e-5)
    near(combine(name, updates, weights, merge="dare_linear", density=1.0), total, 1e-5)


def has_unique_axes(updates: Sequence[Factors]) -> bool:
    """Whether the singular values of the concatenated updates are distinct from each other and from zero.

    Otherwise the axes themselves are not unique (two copies of one update, for instance), and methods that
    decide by signs along the axes may decide otherwise for another order.
    """
    whole = [each.dense() for each in updates]
    rank = sum(each.rank for each in updates)
    for matrix in (
        torch.cat([each.up for each in updates], dim=-1),
        torch.cat([each.down for each in updates], dim=-2),
        torch.cat(whole, dim=-1),
        torch.cat(whole, dim=-2),
    ):
        values = torch.linalg.svdvals(matrix.double())[:rank]
        if bool((values.diff().abs() < 1e-3 * values[0]).any()) or values[-1] < 1e-3 * values[0]:
            return False
    return True


@EACH
@given(updates=drawn, places=st.permutations(range(4)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_parents_does_not_matter(
    name: str, values: dict[str, Any], updates: list[Factors], places: list[int]
) -> None:
    assume(has_unique_axes(updates))
    order = [place for place in places if place < len(updates)]
    turned = combine(name, [updates[place] for place in order], **values)
    near(turned, combine(name, updates, **values), 1e-4)


@EACH
def test_the_factorisation_of_an_update_does_not_matter(name: str, values: dict[str, Any]) -> None:
    updates = several(3)
    mix = torch.tensor([[2.0, 1.0], [0.0, 0.125]])
    other = Factors(updates[1].up @ mix * 4, torch.linalg.inv(mix) @ updates[1].down, updates[1].scale / 4)
    made = combine(name, [updates[0], other, updates[2]], **values)
    near(made, combine(name, updates, **values), 1e-5)


@EACH
@pytest.mark.parametrize("factor", [1e-5, 8.0, -1.0])
def test_scaled_updates_make_a_scaled_result(name: str, values: dict[str, Any], factor: float) -> None:
    updates = several(3)
    made = combine(name, [each.scaled_by(factor) for each in updates], **values)
    near(made / factor, combine(name, updates, **values), 1e-5)


@EACH
def test_an_absent_update_leaves_the_others_unchanged(name: str, values: dict[str, Any]) -> None:
    updates = several(3)
    expected = combine(name, updates[:2], **values)
    near(combine(name, updates, [1.0, 1.0, 0.0], **values), expected)
    near(combine(name, [*updates[:2], None], **values), expected)


@EACH
def test_the_rank_is_at_most_that_of_all_updates_together(name: str, values: dict[str, Any]) -> None:
    updates = several(3)
    made = factors(name, updates, **values)
    assert made.rank <= 6
    assert made.up.shape[-1] == made.down.shape[-2]


@EACH
def test_untrained_factors_do_not_rotate_the_result(name: str, values: dict[str, Any]) -> None:
    one, zero = update(0, 3), Factors(torch.zeros(12, 2), update(1, 2).down)
    near(combine(name, [one, zero], **values), combine(name, [one], **values))
    assert not combine(name, [zero, zero], **values).any()


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize(
    ("name", "values"), [EVERY[0], EVERY[2], EVERY[4]], ids=["knots", "core_space", "tsv"]
)
def test_an_update_combined_with_itself_is_the_update(
    name: str, values: dict[str, Any], scale: float
) -> None:
    one = update(0, 3, scale)
    inner = {"density": 1.0} if "merge" in values else {}
    near(combine(name, [one, one], **values, **inner), dense(one), 1e-5)


def test_dropped_elements_are_0_along_the_axes_and_the_others_make_up_for_them() -> None:
    one = update(0, 3)
    left = triplets(dense(one), 3)[0]
    made, whole = left.mT @ combine("knots", [one], merge="dare_linear", density=0.5), left.mT @ dense(one)
    kept = made.abs() > 1e-5
    assert 0 < int(kept.sum()) < kept.numel()
    near(made[kept], 2 * whole[kept], 1e-5)


@ALIGNED
def test_randomness_depends_only_on_the_seed(name: str) -> None:
    updates = several(3)
    once, again = (combine(name, updates, merge="dare_ties", density=0.5) for _ in range(2))
    assert torch.equal(once, again)


@EACH
def test_adapters_are_combined_module_by_module(name: str, values: dict[str, Any], tmp_path: Path) -> None:
    folders = mergekit.adapters(tmp_path)
    parents = [ParentAdapter(open_dir(folder), label) for label, folder in folders.items()]
    inputs = tuple(RecipeInput(source=label, weight=0.5) for label in folders)
    recipe = CombineRecipe(method=name, parameters=values, inputs=inputs)
    write_adapter(build_combined_adapter(plan_combination(recipe, parents)), tmp_path / "made")
    made = open_adapter_deltas(ParentAdapter(open_dir(tmp_path / "made"), "made"))
    held = [open_adapter_deltas(parent) for parent in parents]
    assert [site.path for site in made.modules] == list(mergekit.TARGETS)
    for site in made.modules:
        given_there = [each.factors(site) if site in each.modules else None for each in held]
        near(dense(made.factors(site)), combine(name, given_there, [0.5] * 3, **values))
