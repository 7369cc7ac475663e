"""Merges by combine methods other than the sum: nothing is lost by truncation to a rank, and nothing is
silently left out.

The reference is computed differently: the adapters are combined into one of full rank, which PEFT merges.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.combining.combine import build_combined_adapter
from adaptry.compute.combining.plan import plan_combination
from adaptry.compute.lazy_adapters.folder_writer import write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.merge_verification.verification import verify
from adaptry.compute.merging.merge import MergeOptions, MergeSource, merge, plan_recipe
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.combine import CombineRecipe
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.errors import AdaptryError, CheckFailed, Invalid, Unsupported

from .conftest import Make, merged_by_peft, tensors_of, torch

WAYS: list[tuple[str, dict[str, Any]]] = [
    ("ties", {"density": 0.3}),
    ("dare_linear", {"density": 0.6}),
    ("dare_ties", {}),
    ("della", {}),
    ("breadcrumbs", {}),
    ("sce", {}),
    ("magnitude_prune", {"density": 0.4}),
    ("nuslerp", {}),
    ("karcher", {}),
    ("knots", {}),
    ("tsv", {}),
    ("iso_c", {}),
    ("core_space", {}),
]


def recipe_of(base: Path, adapters: list[Path], method: str, **fields: Any) -> MergeRecipe:
    weights = [1.0] * len(adapters)
    inputs = tuple(
        RecipeInput(source=str(path), weight=weight) for path, weight in zip(adapters, weights, strict=True)
    )
    return MergeRecipe(base=str(base), inputs=inputs, method=method, seed=7, **fields)


def sources_of(adapters: list[Path]) -> list[MergeSource]:
    return [MergeSource(WeightedAdapter(open_dir(path), 1.0, path.name)) for path in adapters]


def merged(base: Path, adapters: list[Path], target: Path, method: str, **fields: Any) -> dict[str, Any]:
    merge(
        recipe_of(base, adapters, method, **fields),
        open_checkpoint(base),
        sources_of(adapters),
        target,
        MergeOptions(),
    )
    return tensors_of(target)


def by_full_rank(base: Path, adapters: list[Path], folder: Path, method: str, parameters: Any) -> Any:
    """PEFT's merge of one adapter that holds the whole combination."""
    inputs = tuple(RecipeInput(source=str(place)) for place, _ in enumerate(adapters))
    recipe = CombineRecipe(method=method, parameters=parameters, inputs=inputs, energy=1.0, seed=7)
    parents = [ParentAdapter(open_dir(path), path.name) for path in adapters]
    write_adapter(build_combined_adapter(plan_combination(recipe, parents)), folder)
    return merged_by_peft(base, folder)


def close(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(torch.allclose(tensor, wanted[name], atol=2e-6) for name, tensor in found.items())


@pytest.mark.parametrize(("method", "parameters"), WAYS, ids=[method for method, _ in WAYS])
def test_each_method_of_combining_can_be_merged(
    make_base: Make, make_adapter: Make, tmp_path: Path, method: str, parameters: dict[str, Any]
) -> None:
    base = make_base("llama")
    adapters = [
        make_adapter(base, "one", 1, r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]),
        make_adapter(base, "two", 2, r=6, lora_alpha=9, target_modules=["q_proj", "v_proj"], use_rslora=True),
    ]

    found = merged(base, adapters, tmp_path / "merged", method, parameters=parameters)

    assert close(found, by_full_rank(base, adapters, tmp_path / "full", method, parameters))
    stored = tensors_of(base)
    changed = {name for name in found if not torch.equal(found[name], stored[name])}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "v_proj", "down_proj"}


@pytest.mark.parametrize("kind", ["Conv1D", "an embedding", "a tied embedding"])
def test_transposed_weights_are_combined_in_the_right_orientation(
    make_base: Make, make_adapter: Make, tmp_path: Path, kind: str
) -> None:
    tied = kind == "a tied embedding"
    base = make_base("gpt2") if kind == "Conv1D" else make_base("llama", tied=tied)
    targets = ["c_attn", "c_proj"] if kind == "Conv1D" else ["embed_tokens", "k_proj"]
    fields = {"r": 4, "target_modules": targets, "embeddings": False}
    adapters = [make_adapter(base, "one", 1, **fields), make_adapter(base, "two", 2, **fields)]

    found = merged(base, adapters, tmp_path / "merged", "ties")

    wanted = by_full_rank(base, adapters, tmp_path / "full", "ties", {})
    if tied:  # PEFT changes both ends; here, the result has a separate head, equal to the base's
        assert torch.equal(found.pop("lm_head.weight"), tensors_of(base)["model.embed_tokens.weight"])
    assert close(found, wanted)


def test_the_seed_decides_what_is_drawn(make_base: Make, make_adapter: Make, tmp_path: Path) -> None:
    base = make_base("llama")
    adapters = [make_adapter(base, name, seed, target_modules=["q_proj"]) for seed, name in enumerate("ab")]

    first, again = (merged(base, adapters, tmp_path / name, "dare_linear") for name in ("1", "2"))
    recipe = recipe_of(base, adapters, "dare_linear").model_copy(update={"seed": 8})
    merge(recipe, open_checkpoint(base), sources_of(adapters), tmp_path / "3", MergeOptions())

    assert all(torch.equal(first[name], again[name]) for name in first)
    other = tensors_of(tmp_path / "3")
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_merge_by_a_method_is_verified_from_its_record(
    make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base("llama", torch.bfloat16)
    adapters = [make_adapter(base, name, seed, target_modules=["q_proj"]) for seed, name in enumerate("ab")]
    merged(base, adapters, tmp_path / "merged", "ties", parameters={"density": 0.5})

    def verdict(method: str, **fields: Any) -> bool:
        recipe = recipe_of(base, adapters, method, **fields)
        decided = plan_recipe(recipe, open_checkpoint(base), sources_of(adapters))
        return verify(decided, open_checkpoint(tmp_path / "merged")).is_proved

    assert verdict("ties", parameters={"density": 0.5})
    assert not verdict("ties", parameters={"density": 0.25})
    assert not verdict("linear")


@pytest.mark.parametrize(
    ("method", "parameters", "error", "words"),
    [
        ("tyes", {}, Invalid, "unknown method 'tyes'"),
        ("ties", {"densty": 0.5}, Invalid, "ties has no parameter 'densty'"),
        ("peft:ties_svd", {}, Unsupported, "make it with `adaptry combine --method peft:ties_svd`"),
        ("slerp", {}, Invalid, "slerp combines 2 adapters, not 3"),
    ],
)
def test_an_unknown_method_is_reported_before_anything_is_written(
    make_base: Make,
    make_adapter: Make,
    tmp_path: Path,
    method: str,
    parameters: dict[str, Any],
    error: type[AdaptryError],
    words: str,
) -> None:
    base = make_base("llama")
    adapters = [make_adapter(base, name, seed, target_modules=["q_proj"]) for seed, name in enumerate("abc")]

    with pytest.raises(error, match=words):
        merged(base, adapters, tmp_path / "merged", method, parameters=parameters)
    assert not (tmp_path / "merged").exists()


def test_two_saved_heads_cannot_be_combined(make_base: Make, make_adapter: Make, tmp_path: Path) -> None:
    base = make_base("llama")
    fields = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    adapters = [make_adapter(base, name, seed, **fields) for seed, name in enumerate("ab")]

    with pytest.raises(CheckFailed, match=r"b replaces lm_head.* and a replaces it too"):
        merged(base, adapters, tmp_path / "merged", "ties")

    plain = make_adapter(base, "plain", 5, target_modules=["v_proj"])
    found = merged(base, [adapters[0], plain], tmp_path / "merged", "ties")
    head = tensors_of(adapters[0])["base_model.model.lm_head.weight"]
    assert torch.equal(found["lm_head.weight"], head)


def test_inputs_that_save_different_modules_each_bring_theirs(
    make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base("llama")
    adapters = [
        make_adapter(base, "head", 1, target_modules=["q_proj"], modules_to_save=["lm_head"]),
        make_adapter(base, "norm", 2, target_modules=["v_proj"], modules_to_save=["norm"]),
    ]

    found = merged(base, adapters, tmp_path / "merged", "ties", parameters={"density": 1.0})

    head, norm = (merged_by_peft(base, adapter) for adapter in adapters)
    alone = {name: head[name] if ".v_proj." not in name else norm[name] for name in found}
    assert close(found, {**alone, "model.norm.weight": norm["model.norm.weight"]})
