"""Elementwise combine methods, compared with their formulas in float64 and with mergekit, and their algebraic
properties.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adaptry import open_dir
from adaptry.compute.combining import COMBINE_METHODS
from adaptry.compute.combining.combine import build_combined_adapter
from adaptry.compute.combining.method import CombineInputs
from adaptry.compute.combining.plan import plan_combination
from adaptry.compute.lazy_adapters.folder_writer import write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.recipes.combine import CombineRecipe
from adaptry.compute.recipes.merge import RecipeInput
from adaptry.compute.tensors.lowrank import Factors
from adaptry.core.errors import Invalid
from adaptry.testing.samples import tiny_lora

from .mergekit_library import MERGEKIT
from .updates import dense, drawn, near, several, update

SUMS = ("magnitude_prune", "dare_linear", "della_linear", "breadcrumbs")
ELECTIONS = ("ties", "dare_ties", "della", "breadcrumbs_ties")
WITHOUT_CHANCE = ("magnitude_prune", "breadcrumbs", "ties", "breadcrumbs_ties", "sce")
ALL = (*SUMS, *ELECTIONS, "sce")


def made(
    name: str, updates: Sequence[Factors], weights: Sequence[float], seed: int = 0, **values: Any
) -> Tensor:
    """The result of the method `name` for the updates, in float64. (`Any`: a parameter's value.)"""
    combination = COMBINE_METHODS[name]
    told = CombineInputs(
        updates,
        weights,
        combination.check_values(values),
        lambda place: torch.Generator().manual_seed(seed * 1000 + place),
    )
    result = combination.combine(told)
    assert isinstance(result, Tensor) and result.dtype == torch.float32
    return result.double()


# The formulas, element by element, in float64.


def top(delta: Tensor, count: int) -> Tensor:
    """The elements with the `count` largest magnitudes."""
    kept = delta.flatten().clone()
    kept[kept.abs().argsort(descending=True)[count:]] = 0
    return kept.reshape(delta.shape)


def election(deltas: Sequence[Tensor], weights: Sequence[float], sign: str, divide: str) -> Tensor:
    result = torch.zeros_like(deltas[0])
    for row in range(result.shape[0]):
        for column in range(result.shape[1]):
            elements = [float(delta[row, column]) for delta in deltas]
            result[row, column] = elected(elements, weights, sign, divide)
    return result


def elected(elements: Sequence[float], weights: Sequence[float], sign: str, divide: str) -> float:
    pairs = list(zip(elements, weights, strict=True))
    match sign:
        case "unweighted":
            votes = sum(elements)
            voters = elements
        case "weighted":
            voters = [element * weight for element, weight in pairs]
            votes = sum(voters)
        case _:
            voters = [element * weight for element, weight in pairs]
            votes = sum((voter > 0) - (voter < 0) for voter in voters)
    agreeing = [
        pair for pair, voter in zip(pairs, voters, strict=True) if (voter > 0 if votes >= 0 else voter < 0)
    ]
    total = sum(element * weight for element, weight in agreeing)
    divisor = {"count": len(agreeing), "weights": sum(weight for _, weight in agreeing), "none": 1}[divide]
    return total / divisor if divisor else total


@pytest.mark.parametrize("sign", ["weighted", "unweighted", "frequency"])
@pytest.mark.parametrize("divide", ["count", "weights", "none"])
def test_ties_is_trim_elect_and_mean(sign: str, divide: str) -> None:
    updates, weights = several(4), (0.5, -1.0, 2.0, 0.7)
    trimmed = [top(dense(each), int(0.3 * 108)) for each in updates]
    expected = 1.5 * election(trimmed, weights, sign, divide)
    near(made("ties", updates, weights, density=0.3, sign=sign, divide=divide, **{"lambda": 1.5}), expected)


def test_magnitude_pruning_sums_the_largest() -> None:
    updates, weights = several(3), (0.5, -1.0, 2.0)
    kept = [top(dense(each), int(0.25 * 108)) for each in updates]
    expected = sum((delta * weight for delta, weight in zip(kept, weights, strict=True)), torch.zeros(12, 9))
    near(made("magnitude_prune", updates, weights, density=0.25), expected)
    near(made("magnitude_prune", updates, weights, density=0.25, normalize=True), expected / 1.5)


def test_breadcrumbs_leave_out_outliers_and_the_smallest() -> None:
    delta = dense(several(2)[1])
    expected = top(delta, 10 + 54) - top(delta, 10)
    near(made("breadcrumbs", several(2)[1:], [1.0], density=0.5, gamma=0.1), expected)
    whole = made("breadcrumbs", several(2)[1:], [1.0], density=0.95, gamma=0.5)
    near(whole, delta - top(delta, 6))  # density wins over gamma


def test_an_update_of_many_blocks_is_trimmed_as_one() -> None:
    wide = update(3, 2, shape=(700, 900))
    delta = wide.dense()
    threshold = delta.abs().flatten().sort(descending=True).values[int(0.1 * delta.numel()) - 1]
    trimmed = made("magnitude_prune", [wide], [1.0], density=0.1)
    near(trimmed, torch.where(delta.abs() >= threshold, delta, 0).double(), 1e-5)
    assert int(trimmed.count_nonzero()) == pytest.approx(0.1 * delta.numel(), abs=2)


def test_equal_magnitudes_are_kept_or_dropped_together() -> None:
    even = Factors(torch.ones(6, 1), torch.tensor([[1.0, -1.0, 1.0, 2.0]]))
    assert made("magnitude_prune", [even], [1.0], density=0.25).count_nonzero() == 6
    assert made("magnitude_prune", [even], [1.0], density=0.3).count_nonzero() == 24


@pytest.mark.parametrize("name", ["dare_linear", "della_linear"])
def test_random_dropping_keeps_a_share_and_preserves_the_mean(name: str) -> None:
    one = update(1, 3)
    rounds = [made(name, [one], [1.0], seed=seed, density=0.4) for seed in range(2000)]
    assert torch.stack([each != 0 for each in rounds]).double().mean() == pytest.approx(0.4, abs=0.005)
    mean = torch.stack(rounds).mean(
        0
    )  # its deviation at an element δ is |δ|·√(1/p − 1)/√2000, p at least 0.3
    assert bool(((mean - dense(one)).abs() <= 5 * 1.53 / 2000**0.5 * dense(one).abs()).all())


def test_dare_divides_what_stays_by_its_probability() -> None:
    one = update(2, 3)
    kept = made("dare_linear", [one], [1.0], density=0.25)
    near(kept, torch.where(kept != 0, dense(one) / 0.25, 0))


def test_della_drops_small_elements_of_a_row_sooner() -> None:
    row = Factors(torch.ones(1, 1), torch.tensor([[0.3, -0.1, 0.2, -0.5, 0.4]]))
    rounds = [made("della_linear", [row], [1.0], seed=seed, density=0.5, epsilon=0.4) for seed in range(4000)]
    frequency = torch.stack([each[0] != 0 for each in rounds]).double().mean(0)
    chance = torch.tensor([0.5, 0.3, 0.4, 0.7, 0.6]).double()
    torch.testing.assert_close(frequency, chance, rtol=0, atol=0.035)
    near(rounds[0][0], torch.where(rounds[0][0] != 0, row.dense()[0].double() / chance, 0))


@pytest.mark.parametrize("name", ["dare_linear", "della_linear", "breadcrumbs", "magnitude_prune"])
def test_an_l1_rescale_leaves_the_sum_of_magnitudes(name: str) -> None:
    one = update(4, 2, batch=(3,))
    keeps_norm(made(name, [one], [1.0], density=0.5, rescale="l1"), dense(one))


def keeps_norm(result: Tensor, delta: Tensor) -> None:
    assert float(result.abs().sum()) == pytest.approx(float(delta.abs().sum()), rel=1e-5)
    factors = (result / delta)[result != 0]
    near(factors, factors[:1].expand_as(factors), 1e-5)


def test_sce_selects_weighs_and_erases() -> None:
    updates, weights = several(3), (1.0, 0.5, -2.0)
    deltas = torch.stack([dense(each) * weight for each, weight in zip(updates, weights, strict=True)])
    variance = deltas.var(dim=0, unbiased=False)
    selected = deltas * (top(variance, int(0.3 * 108)) > 0)
    energy = selected.square().sum(dim=(1, 2))
    shares = [float(share) for share in energy / energy.sum()]
    expected = torch.zeros(12, 9).double()
    for row in range(12):
        for column in range(9):
            elements = [float(each) for each in selected[:, row, column]]
            is_up = sum(elements) >= 0
            agreeing = [(e, s) for e, s in zip(elements, shares, strict=True) if (e > 0 if is_up else e < 0)]
            if agreeing:
                expected[row, column] = sum(e * s for e, s in agreeing) / sum(s for _, s in agreeing)
    near(made("sce", updates, weights, select=0.3), expected, 1e-5)


# The results of mergekit.

UPDATES, WEIGHTS = several(3, seed=40), (1.0, 0.5, -0.7)
CASES: dict[str, tuple[str, Sequence[float], dict[str, Any], str, dict[str, Any]]] = {
    "ties": ("ties", WEIGHTS, {"density": 0.4}, "ties", {"density": 0.4, "divide": "weights"}),
    "ties, not normalized": (
        "ties",
        WEIGHTS,
        {"density": 0.4, "normalize": False, "lambda": 1.5},
        "ties",
        {"density": 0.4, "divide": "none", "lambda": 1.5},
    ),
    "ties, rescaled": (
        "ties",
        WEIGHTS,
        {"density": 0.4, "rescale": True},
        "ties",
        {"density": 0.4, "divide": "weights", "rescale": "l1"},
    ),
    "dare_linear, all": ("dare_linear", WEIGHTS, {}, "dare_linear", {"density": 1.0}),
    "dare_linear, normalized": (
        "dare_linear",
        WEIGHTS,
        {"normalize": True},
        "dare_linear",
        {"density": 1.0, "normalize": True},
    ),
    "dare_ties, all": ("dare_ties", WEIGHTS, {}, "dare_ties", {"density": 1.0, "divide": "none"}),
    "della, all": ("della", WEIGHTS, {}, "della", {"density": 1.0, "divide": "weights"}),
    "della_linear, all": ("della_linear", WEIGHTS, {}, "della_linear", {"density": 1.0}),
    "breadcrumbs": (
        "breadcrumbs",
        WEIGHTS,
        {"density": 0.5, "gamma": 0.1},
        "breadcrumbs",
        {"density": 0.5, "gamma": 0.1},
    ),
    "breadcrumbs without outliers": (
        "breadcrumbs",
        WEIGHTS,
        {"density": 0.5, "gamma": 0.0},
        "magnitude_prune",
        {"density": 0.5},
    ),
    "breadcrumbs_ties": (
        "breadcrumbs_ties",
        WEIGHTS,
        {"density": 0.7, "gamma": 0.05},
        "breadcrumbs_ties",
        {"density": 0.7, "gamma": 0.05, "divide": "none"},
    ),
    "sce": ("sce", (1.0, 1.0, 1.0), {"select_topk": 0.3}, "sce", {"select": 0.3}),
    "sce, all": ("sce", (1.0, 1.0, 1.0), {}, "sce", {"select": 1.0}),
}
"""mergekit's method, weights and parameters; our name and parameters for it."""
CHANCES = {
    "dare_linear": ("dare_linear", (1.0,), {"density": 0.5}),
    "della_linear": ("della_linear", (1.0,), {"density": 0.5, "epsilon": 0.15}),
}
"""mergekit's draws cannot be ours: what is compared is the law that they follow."""
RECORDED = json.loads(Path(__file__).with_name("mergekit_elements.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_those_of_mergekit(case: str) -> None:
    _, weights, _, name, values = CASES[case]
    near(made(name, UPDATES, weights, **values), torch.tensor(RECORDED[case]).double(), 3e-6)


@pytest.mark.parametrize("case", CHANCES)
def test_mergekit_rescales_random_dropping_like_our_l1(case: str) -> None:
    keeps_norm(torch.tensor(RECORDED[case]).double(), dense(UPDATES[0]))


@MERGEKIT.needed
def test_mergekit_still_gives_the_recorded_numbers() -> None:
    answer = subprocess.run(
        [MERGEKIT.python, str(Path(__file__).with_name("mergekit_elements.py"))],
        input=json.dumps(question()),
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    answered = json.loads(answer)
    assert answered.keys() == RECORDED.keys()
    for case, values in answered.items():
        near(torch.tensor(values).double(), torch.tensor(RECORDED[case]).double())


def question() -> dict[str, Any]:
    cases = {name: case[:3] for name, case in CASES.items()} | CHANCES
    return {"updates": [each.dense().tolist() for each in UPDATES], "cases": cases}


# Algebraic properties.


@settings(deadline=None, max_examples=20)
@given(drawn, st.sampled_from(WITHOUT_CHANCE), st.randoms(use_true_random=False))
def test_the_order_of_the_adapters_does_not_matter(updates: list[Factors], name: str, random: Any) -> None:
    pairs = [(each, 0.5 + place / 2) for place, each in enumerate(updates)]
    before = made(name, [each for each, _ in pairs], [weight for _, weight in pairs])
    random.shuffle(pairs)
    near(made(name, [each for each, _ in pairs], [weight for _, weight in pairs]), before, 1e-5)


@settings(deadline=None, max_examples=20)
@given(drawn, st.sampled_from(SUMS))
def test_the_result_with_all_elements_is_the_weighted_sum(updates: list[Factors], name: str) -> None:
    weights = [1.0 - place for place in range(len(updates))]
    expected = sum(
        (dense(each) * weight for each, weight in zip(updates, weights, strict=True)), torch.zeros(1)
    )
    near(made(name, updates, weights, density=1.0), expected, 1e-5)


@settings(deadline=None, max_examples=20)
@given(drawn, st.sampled_from(SUMS), st.floats(-3, 3))
def test_sums_are_linear_in_the_weights(updates: list[Factors], name: str, factor: float) -> None:
    first = [1.0] * len(updates)
    second = [float(place) for place in range(len(updates))]
    both = [one + factor * other for one, other in zip(first, second, strict=True)]
    expected = made(name, updates, first) + factor * made(name, updates, second)
    near(made(name, updates, both), expected, 1e-5)


@settings(deadline=None, max_examples=20)
@given(drawn, st.sampled_from(ALL), st.sampled_from([0.5, 2.0, 4.0]))
def test_a_longer_update_gives_a_longer_result(updates: list[Factors], name: str, factor: float) -> None:
    weights = [1.0] * len(updates)
    longer = [each.scaled_by(factor) for each in updates]
    near(made(name, longer, weights), factor * made(name, updates, weights), 1e-5)


@settings(deadline=None, max_examples=10)
@given(drawn, st.sampled_from(ELECTIONS))
def test_combining_one_adapter_with_all_elements_returns_it(updates: list[Factors], name: str) -> None:
    near(made(name, updates[:1], [1.0], density=1.0), dense(updates[0]), 1e-5)


# Results of whole plans.


SOURCES: dict[str, dict[str, Any]] = {
    "one": {"rank": 4, "seed": 1},
    "two": {"rank": 2, "seed": 2, "targets": ("q_proj",)},
}


def combined(
    folder: Path, method: str, weights: dict[str, float], out: str, sources: Any = SOURCES, **told: Any
) -> Path:
    """The adapter combined from tiny ones. (`Any`: the arguments of `tiny_lora` and of a recipe.)"""
    parents = [
        ParentAdapter(open_dir(tiny_lora(folder / out / name, **how)), name) for name, how in sources.items()
    ]
    recipe = CombineRecipe(
        method=method,
        inputs=tuple(RecipeInput(source=name, weight=weights[name]) for name in sources),
        **told,
    )
    write_adapter(build_combined_adapter(plan_combination(recipe, parents)), folder / out / "made")
    return folder / out / "made"


@pytest.mark.parametrize("method", ALL)
def test_the_same_recipe_gives_the_same_bytes_and_another_seed_others(method: str, tmp_path: Path) -> None:
    both = {"one": 1.0, "two": 0.5}
    first, second, third = (
        (combined(tmp_path, method, both, out, seed=seed) / "adapter_model.safetensors").read_bytes()
        for out, seed in (("first", 3), ("second", 3), ("third", 4))
    )
    assert first == second
    assert (first != third) == (method not in WITHOUT_CHANCE)


@pytest.mark.parametrize("method", ALL)
def test_an_input_with_weight_zero_counts_as_absent(method: str, tmp_path: Path) -> None:
    both, alone = (
        combined(tmp_path, method, {"one": 1.0, "two": weight}, out, sources=sources)
        for out, weight, sources in (("both", 0.0, SOURCES), ("alone", 1.0, {"one": SOURCES["one"]}))
    )
    weights = "adapter_model.safetensors"
    assert (both / weights).read_bytes() == (alone / weights).read_bytes()


def test_della_refuses_invalid_probabilities() -> None:
    with pytest.raises(Invalid, match="lie between 0 and 1"):
        made("della", several(2), [1.0, 1.0], density=0.9, epsilon=0.4)
