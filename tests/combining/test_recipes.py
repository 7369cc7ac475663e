"""Recipes that make no sense, and the messages about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry import open_dir
from adaptry.compute.combining.plan import CombinePlan, plan_combination
from adaptry.compute.combining.recipe_file import parse_recipe, parse_yaml
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import AdaptryError, CheckFailed, Invalid
from adaptry.testing.samples import tiny_lora


@pytest.fixture
def parents(tmp_path: Path) -> list[ParentAdapter]:
    return [
        ParentAdapter(open_dir(tiny_lora(tmp_path / name, seed=seed)), name)
        for name, seed in (("a", 1), ("b", 2))
    ]


def planned(text: str, parents: list[ParentAdapter]) -> CombinePlan:
    return plan_combination(parse_recipe(parse_yaml(text.encode(), "both.yaml"), "both.yaml"), parents)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("modules: [{match: q_proj, weights: {zz: 3}}]", Invalid, "'zz', which is not one of the inputs"),
        ("modules: [{match: q_proj, weights: {b: .nan}}]", Invalid, "finite"),
        ("modules: [{match: q_proj, rank: 2}, {match: q_proj, rank: 3}]", Invalid, "'q_proj' twice"),
        ('modules: [{match: "("}]', Invalid, "in the recipe's modules, '\\(' is not a pattern"),
        ("modules: [{match: '(?!(?:[\\w.]+)+!)x'}]", Invalid, "in the recipe's modules, .* take hours"),
        ("modules: [{match: q_proj}, {match: self_attn.q_proj}]", CheckFailed, "an earlier pattern"),
        ('modules: [{match: ".*", weights: {a: 0, b: 0}}]', CheckFailed, "would be empty"),
        ("metod: ties", Invalid, "metod: unknown key; a recipe has method, parameters, inputs"),
        ("modules: {match: q_proj}", Invalid, "modules: must be a list"),
        ("modules: [q_proj]", Invalid, "modules.0: it is neither"),
        ("parameters: [1]", Invalid, "parameters: must be a mapping"),
        ("dtype: int8", Invalid, "float32, float16 or bfloat16"),
    ],
)
def test_a_contradictory_recipe_is_reported(parents, text: str, error: type[AdaptryError], says: str) -> None:
    with pytest.raises(error, match=says) as raised:
        planned(f"inputs: [a, b]\n{text}\n", parents)

    assert "adapter_config.json" not in str(raised.value)


def test_a_dtype_is_written_as_on_the_command_line(parents) -> None:
    assert planned("inputs: [a, b]\ndtype: bfloat16", parents).recipe.dtype == "BF16"
    assert planned("inputs: [a, b]\ndtype: BF16", parents).recipe.dtype == "BF16"


def test_a_module_without_counting_inputs_has_rank_0_in_the_plan(parents) -> None:
    made = planned("inputs: [a, b]\nmodules: [{match: q_proj, weights: {a: 0, b: 0}}]", parents)

    assert {each.expected_rank for each in made.sites if each.site.path.endswith("q_proj")} == {0}
    assert all(each.expected_rank for each in made.sites if not each.site.path.endswith("q_proj"))


def test_inputs_assumed_to_be_of_the_base_are_named_once(parents) -> None:
    (note,) = planned("inputs: [a, b, a]", [*parents, parents[0]]).notes

    assert "the base of a, b" in note


def test_an_input_that_does_not_count_brings_no_whole_weights(parents, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.numpy")
    file = tmp_path / "b" / "adapter_model.safetensors"
    tensors = safetensors.load_file(file)
    tensors["base_model.model.lm_head.weight"] = tensors[next(iter(tensors))]
    safetensors.save_file(tensors, file, {"format": "pt"})
    saved = ParentAdapter(open_dir(tmp_path / "b"), "b")

    assert planned("inputs: [a, b]", [parents[0], saved]).whole.names
    assert not planned("inputs: [a, b=0]", [parents[0], saved]).whole.names
    assert planned("inputs: [a, b=0]\nwhole_weights: b", [parents[0], saved]).whole.names
