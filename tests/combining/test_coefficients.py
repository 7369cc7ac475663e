"""Combine methods based on norms and angles, compared with their formulas on dense updates and
with mergekit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adaptry import open_dir
from adaptry.compute.combining.combine import build_combined_adapter
from adaptry.compute.combining.plan import plan_combination
from adaptry.compute.lazy_adapters.folder_writer import write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.recipes.combine import CombineRecipe
from adaptry.compute.recipes.merge import RecipeInput
from adaptry.compute.tensors.lowrank import Factors
from adaptry.core.errors import CheckFailed, Invalid

from . import mergekit_library as mergekit
from .updates import combine, dense, drawn, factors, near, several, update

EXPERTS = pytest.mark.parametrize("batch", [(), (3,)], ids=["matrix", "experts"])
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "slerp": ("slerp", {"t": 0.3}),
    "nuslerp": ("nuslerp", {}),
    "nuslerp with an absent update": ("nuslerp", {}),
    "nuslerp over rows": ("nuslerp", {"over": "rows"}),
    "nuslerp over columns": ("nuslerp", {"over": "columns"}),
    "multislerp": ("multislerp", {}),
    "multislerp as weighted": ("multislerp", {"normalize": False}),
    "karcher": ("karcher", {}),
    "model_stock": ("model_stock", {}),
    "model_stock over rows": ("model_stock", {"over": "rows"}),
}
RECORDED = json.loads((Path(__file__).parent / "mergekit_angles.json").read_text())


def made(folder: Path, case: str) -> dict[str, torch.Tensor]:
    """The updates of the adapter that we compute in one of mergekit's cases, after writing and reading it."""
    name, parameters = OURS[case]
    weights = mergekit.CASES[case][1]
    recipe = CombineRecipe(
        method=name,
        parameters=parameters,
        inputs=tuple(RecipeInput(source=source, weight=weight) for source, weight in weights.items()),
    )
    parents = [ParentAdapter(open_dir(folder / source), source) for source in weights]
    write_adapter(build_combined_adapter(plan_combination(recipe, parents)), folder / "made")
    return mergekit.updates(folder / "made")


@pytest.mark.parametrize("case", OURS)
def test_a_combined_adapter_equals_mergekits_result(case: str, tmp_path: Path) -> None:
    mergekit.adapters(tmp_path)
    for name, found in made(tmp_path, case).items():
        expected = torch.tensor(RECORDED[case][name]).reshape(found.shape)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@mergekit.MERGEKIT.needed
@pytest.mark.parametrize("case", OURS)
def test_mergekit_still_gives_the_recorded_results(case: str, tmp_path: Path) -> None:
    mergekit.adapters(tmp_path)
    for name, found in mergekit.answers(tmp_path, case).items():
        expected = torch.tensor(RECORDED[case][name]).reshape(found.shape)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def cosine(one: torch.Tensor, other: torch.Tensor, dim: Any) -> torch.Tensor:
    """The cosine over `dim`, which is kept. (`Any`: what torch takes for dim.)"""
    lengths = [torch.linalg.vector_norm(each, dim=dim, keepdim=True) for each in (one, other)]
    return (one * other).sum(dim, keepdim=True) / (lengths[0] * lengths[1])


def arc(one: torch.Tensor, other: torch.Tensor, t: float, dim: Any) -> torch.Tensor:
    """The interpolation along an arc, with angles over `dim`. (`Any`: what torch takes for dim.)"""
    angle = torch.acos(cosine(one, other, dim))
    return (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * other) / torch.sin(angle)


@EXPERTS
@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_slerp_interpolates_along_the_arc(t: float, batch: tuple[int, ...]) -> None:
    one, other = several(2, batch)
    whole = tuple(range(dense(one).dim()))
    near(combine("slerp", [one, other], t=t), arc(dense(one), dense(other), t, whole))


@EXPERTS
@pytest.mark.parametrize(("over", "dim"), [("rows", -1), ("columns", -2)])
def test_nuslerp_gives_each_row_or_column_an_angle_of_its_own(
    over: str, dim: int, batch: tuple[int, ...]
) -> None:
    one, other = several(2, batch)
    made = combine("nuslerp", [one, other], [1.0, 3.0], over=over)
    near(made, arc(dense(one), dense(other), 0.75, dim))


def test_the_ends_of_the_arc_are_the_parents_themselves() -> None:
    one, other = several(2)
    for t, parent in ((0.0, one), (1.0, other)):
        assert factors("slerp", [one, other], t=t).rank == parent.rank
        near(combine("slerp", [one, other], t=t), dense(parent))


@pytest.mark.parametrize("turn", [1.0, -1.0, 1 + 1e-9])
def test_updates_on_one_line_are_interpolated_straight(turn: float) -> None:
    one = update(0, 2)
    made = combine("slerp", [one, one.scaled_by(turn)], t=0.25)
    near(made, dense(one) * (0.75 + 0.25 * turn))


@EXPERTS
def test_multislerp_is_the_mean_direction_at_the_mean_length(batch: tuple[int, ...]) -> None:
    updates, weights = several(4, batch), [1.0, 2.0, 0.5, 0.5]
    thick = [dense(each) for each in updates]
    mean = sum(weight * each / each.norm() for weight, each in zip(weights, thick, strict=True))
    length = sum(weight * each.norm() for weight, each in zip(weights, thick, strict=True)) / 4.0
    near(combine("multislerp", updates, weights), length * mean / mean.norm())


@EXPERTS
def test_at_the_karcher_mean_the_pulls_of_all_updates_cancel(batch: tuple[int, ...]) -> None:
    updates, weights = several(5, batch), [1.0, 2.0, 0.5, 0.5, 1.0]
    thick = [dense(each) for each in updates]
    made = combine("karcher", updates, weights, iterations=200, tolerance=1e-10)
    mean = made / made.norm()
    pull = torch.zeros_like(mean)
    for weight, each in zip(weights, thick, strict=True):
        unit = each / each.norm()
        dot = (unit * mean).sum()
        pull += weight * torch.acos(dot) / torch.sqrt(1 - dot**2) * (unit - dot * mean)
    assert float(pull.norm()) < 1e-6
    length = sum(weight * each.norm() for weight, each in zip(weights, thick, strict=True)) / 5.0
    assert float(made.norm()) == pytest.approx(float(length), rel=1e-6)


@EXPERTS
@pytest.mark.parametrize("over", ["tensor", "rows"])
def test_model_stock_interpolates_by_the_angles(over: str, batch: tuple[int, ...]) -> None:
    updates = several(3, batch)
    thick = [dense(each) for each in updates]
    dims = -1 if over == "rows" else tuple(range(thick[0].dim()))
    mean = sum(cosine(thick[i], thick[j], dims) for i, j in ((0, 1), (0, 2), (1, 2))) / 3
    reach = 3 * mean / (1 + 2 * mean)
    expected = reach * sum(thick) / 3
    near(combine("model_stock", updates, over=over), expected, 1e-5)


@pytest.mark.parametrize("name", ["multislerp", "karcher", "model_stock"])
@given(updates=drawn, places=st.permutations(range(4)))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_parents_does_not_matter(
    name: str, updates: list[Factors], places: list[int]
) -> None:
    order = [place for place in places if place < len(updates)]
    result = settled(name, updates)
    near(settled(name, [updates[place] for place in order]), result, 1e-4)


def settled(name: str, updates: list[Factors]) -> torch.Tensor:
    try:
        return combine(name, updates)
    except CheckFailed:
        assume(False)
        raise


@pytest.mark.parametrize("name", ["slerp", "nuslerp"])
@given(updates=drawn, share=st.floats(0.05, 0.95))
@settings(max_examples=25, deadline=None)
def test_the_arc_is_the_same_from_either_end(name: str, updates: list[Factors], share: float) -> None:
    one, other = updates[:2]
    if name == "slerp":
        there, back = combine(name, [one, other], t=share), combine(name, [other, one], t=1 - share)
    else:
        there = combine(name, [one, other], [1 - share, share])
        back = combine(name, [other, one], [share, 1 - share])
    near(there, back, 1e-4)


@pytest.mark.parametrize("name", ["multislerp", "karcher", "model_stock"])
def test_an_input_with_weight_zero_counts_as_absent(name: str) -> None:
    updates = several(4)
    near(combine(name, updates, [1.0, 1.0, 1.0, 0.0]), combine(name, updates[:3]))


@pytest.mark.parametrize("name", ["multislerp", "karcher", "model_stock", "nuslerp"])
def test_an_absent_update_counts_as_zero(name: str) -> None:
    one, other = several(2)
    nothing = Factors(torch.zeros(12, 2), other.down[:1].expand(2, -1).contiguous())
    for updates in ([one, None], [None, one]):
        zeros = [nothing if each is None else each for each in updates]
        near(combine(name, updates, [1.0, 1.0]), combine(name, zeros, [1.0, 1.0]))


@pytest.mark.parametrize("name", ["slerp", "nuslerp", "multislerp", "karcher", "model_stock"])
@pytest.mark.parametrize("factor", [-2.0, 1e-6, 1e4])
def test_scaled_updates_make_a_scaled_result(name: str, factor: float) -> None:
    updates = several(2)
    scaled = [each.scaled_by(factor) for each in updates]
    near(combine(name, scaled) / factor, combine(name, updates), 1e-5)


@pytest.mark.parametrize("name", ["slerp", "nuslerp", "multislerp", "karcher", "model_stock"])
def test_equal_updates_give_that_update(name: str) -> None:
    one = update(3, 3, 0.5)
    near(combine(name, [one, one]), dense(one))


def test_the_mean_of_one_is_that_one() -> None:
    for name in ("karcher", "multislerp"):
        near(combine(name, [update(3, 3, 0.5)], [0.7]), dense(update(3, 3, 0.5)))


@pytest.mark.parametrize("name", ["slerp", "nuslerp", "multislerp", "karcher", "model_stock"])
def test_untrained_updates_give_a_zero_result(name: str) -> None:
    zero = Factors(torch.zeros(12, 2), torch.ones(2, 9))
    assert not combine(name, [zero, zero]).any()


@pytest.mark.parametrize("name", ["multislerp", "karcher"])
def test_directions_that_cancel_have_no_mean(name: str) -> None:
    one = update(0, 2)
    with pytest.raises(CheckFailed, match=r"layer\.0: the directions of the updates cancel"):
        combine(name, [one, one.scaled_by(-3.0)])


def test_a_mean_with_its_opposite_among_the_updates_is_refused() -> None:
    one = update(0, 2)
    with pytest.raises(CheckFailed, match="not unique"):
        combine("karcher", [one, one, one.scaled_by(-1.0)])


def test_zero_shares_are_refused() -> None:
    with pytest.raises(CheckFailed, match="the weights sum to 0"):
        combine("karcher", several(2), [1.0, -1.0])


@pytest.mark.parametrize("name", ["slerp", "model_stock"])
def test_weights_are_refused_by_methods_that_compute_them(name: str, tmp_path: Path) -> None:
    mergekit.adapters(tmp_path)
    parents = [ParentAdapter(open_dir(tmp_path / source), source) for source in ("one", "two")]
    inputs = (RecipeInput(source="one", weight=0.5), RecipeInput(source="two"))
    with pytest.raises(Invalid, match=f"{name} does not use weights"):
        plan_combination(CombineRecipe(method=name, inputs=inputs), parents)
