"""Numerical edge cases of combinations: NaN, weights that exceed a dtype, and reported rounding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry import open_dir
from adaptry.compute.combining.combine import build_combined_adapter
from adaptry.compute.combining.plan import plan_combination
from adaptry.compute.conversion.convert import convert
from adaptry.compute.conversion.options import ConvertOptions
from adaptry.compute.conversion.resize import ResizeOptions, resize
from adaptry.compute.lazy_adapters.folder_writer import ComputeResult, write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.recipes.combine import CombineRecipe
from adaptry.compute.recipes.merge import RecipeInput
from adaptry.core.errors import CheckFailed, InvalidWeights
from adaptry.testing.samples import tiny_lora

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

QUERY = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def parents(tmp_path: Path) -> list[ParentAdapter]:
    return [
        ParentAdapter(open_dir(tiny_lora(tmp_path / name, seed=seed)), name)
        for name, seed in (("a", 1), ("b", 2))
    ]


@pytest.fixture
def broken(tmp_path: Path) -> ParentAdapter:
    """An adapter with one NaN element."""
    folder = tiny_lora(tmp_path / "broken")
    tensors = safetensors.load_file(folder / "adapter_model.safetensors")
    tensors[f"{QUERY}.lora_B.weight"][0, 0] = float("nan")
    safetensors.save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return ParentAdapter(open_dir(folder), "broken")


def combined(
    parents: list[ParentAdapter], target: Path, weights: tuple[float, ...] = (1.0, 1.0), **words
) -> ComputeResult:
    inputs = tuple(
        RecipeInput(source=parent.label, weight=weight)
        for parent, weight in zip(parents, weights, strict=True)
    )
    return write_adapter(
        build_combined_adapter(plan_combination(CombineRecipe(inputs=inputs, **words), parents)), target
    )


def update(folder: Path) -> torch.Tensor:
    """One module's update in float64, scaled by the folder's config."""
    tensors = safetensors.load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    up, down = (tensors[f"{QUERY}.lora_{role}.weight"].double() for role in "BA")
    return config["lora_alpha"] / config["r"] * up @ down


@pytest.mark.parametrize("method", ["linear", "svd", "ties", "karcher"])
def test_an_update_with_nan_is_refused_and_nothing_is_written(
    parents, broken: ParentAdapter, tmp_path: Path, method: str
) -> None:
    with pytest.raises(InvalidWeights, match=r"broken: the update of model.layers.0.*NaN"):
        combined([parents[0], broken], tmp_path / "made", method=method)

    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "make", [lambda one: convert(one, ConvertOptions()), lambda one: resize(one, ResizeOptions(rank=1))]
)
def test_an_update_with_nan_is_neither_converted_nor_resized(
    broken: ParentAdapter, tmp_path: Path, make: Callable
) -> None:
    with pytest.raises(InvalidWeights, match="NaN"):
        write_adapter(make(broken), tmp_path / "made")


@pytest.mark.parametrize(
    ("words", "weight"),
    [({}, 1e300), ({"dtype": "F16"}, 1e7), ({"method": "sce"}, 1e38), ({"method": "peft:linear"}, 1e300)],
)
def test_a_result_beyond_its_dtype_is_refused(parents, tmp_path: Path, words: dict, weight: float) -> None:
    with pytest.raises(CheckFailed, match="too large for"):
        combined(parents, tmp_path / "made", (weight, 1.0), **words)


@pytest.mark.parametrize("rank", [None, 2])
def test_values_lost_in_half_precision_are_reported(parents, tmp_path: Path, rank: int | None) -> None:
    exact = combined(parents, tmp_path / "exact", rank=rank)
    rounded = combined(parents, tmp_path / "rounded", rank=rank, dtype="BF16")

    wanted = update(tmp_path / "a") + update(tmp_path / "b")
    lost = float((update(tmp_path / "rounded") - wanted).square().sum())
    figures = next(each.figures for each in rounded.modules if f"base_model.model.{each.module}" == QUERY)
    assert figures["lost"] == pytest.approx(lost, rel=1e-3)
    assert rounded.error > exact.error


def test_values_representable_in_half_precision_stay_exact(parents, tmp_path: Path) -> None:
    combined(parents, tmp_path / "half", dtype="BF16")
    half = ParentAdapter(open_dir(tmp_path / "half"), "half")

    assert combined([half], tmp_path / "again", (0.5,), dtype="BF16").error == 0.0
