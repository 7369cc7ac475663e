"""Small adapters as parents, and their dense updates in float64, read without Adaptry's code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry import open_dir
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.testing.samples import tiny_lora

pytest.importorskip("torch")


@pytest.fixture
def lora(tmp_path: Path) -> Callable[..., ParentAdapter]:
    """`lora("a", seed=2, rank=8)`: an adapter in a folder of that name."""

    def make(name: str, **options) -> ParentAdapter:
        return ParentAdapter(open_dir(tiny_lora(tmp_path / name, **options)), name)

    return make


@pytest.fixture
def dense(tmp_path: Path):
    """Every module's update of the adapter in the folder of that name: α/r · B @ A."""
    safetensors = pytest.importorskip("safetensors.numpy")

    def read(name: str):
        config = json.loads((tmp_path / name / "adapter_config.json").read_text())
        tensors = safetensors.load_file(tmp_path / name / "adapter_model.safetensors")
        found = {}
        for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
            module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            rank = config["rank_pattern"].get(module, config["r"])
            alpha = config["alpha_pattern"].get(module, config["lora_alpha"])
            up, down = tensors[key.replace("lora_A", "lora_B")], tensors[key]
            found[module] = alpha / rank * up.astype("f8") @ down.astype("f8")
        return found

    return read


@pytest.fixture
def mixed(lora, tmp_path: Path):
    """`mixed("m", a, b, 0.1)`: an adapter that acts as a + 0.1·b, in a folder of that name."""

    def make(name: str, one: ParentAdapter, other: ParentAdapter, weight: float, **options) -> ParentAdapter:
        from adaptry.compute.combining.combine import build_combined_adapter
        from adaptry.compute.combining.plan import plan_combination
        from adaptry.compute.lazy_adapters.folder_writer import write_adapter
        from adaptry.compute.recipes.combine import CombineRecipe
        from adaptry.compute.recipes.merge import RecipeInput

        inputs = (RecipeInput(source=one.label), RecipeInput(source=other.label, weight=weight))
        write_adapter(
            build_combined_adapter(plan_combination(CombineRecipe(inputs=inputs, **options), [one, other])),
            tmp_path / name,
        )
        return ParentAdapter(open_dir(tmp_path / name), name)

    return make
