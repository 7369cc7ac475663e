"""`--rounding peft` reproduces PEFT's bits: the base is cast first, and the result is rounded after each
adapter.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.merge import MergeOptions, MergeSource, merge
from adaptry.compute.merging.record import MergeRecord
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.compute.tensors.torch_kernel import single_torch_threads

from ..methods.corpus import cases, make
from ..methods.families import FAMILIES
from ..methods.lora_merging import load, save_adapter, save_base
from .conftest import peft, torch

HALVES = {"F16": torch.float16, "BF16": torch.bfloat16}
LAYERS: dict[str, dict[str, Any]] = {
    "linear": {"target_modules": ["q_proj", "down_proj"]},
    "embedding": {"target_modules": ["embed_tokens", "v_proj"]},
    "dora": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "convolutions": {"target_modules": ["line", "plane", "point", "space", "linear", "words"]},
    "convolutions, dora": {"target_modules": ["line", "plane", "point", "space"], "use_dora": True},
}
OTHERS = ["loha", "oft", "vera", "ia3", "hira", "delora", "adalora", "c3a", "miss", "trainable_tokens"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Uses one thread, like a merge: with several, torch sums a convolution in a different order."""
    with single_torch_threads():
        yield


def merged(
    base: Path, adapters: list[Path], target: Path, kernel: str = "auto", **fields: Any
) -> MergeRecord:
    inputs = tuple(RecipeInput(source=adapter.name) for adapter in adapters)
    sources = [MergeSource(WeightedAdapter(open_dir(path), 1.0, path.name)) for path in adapters]
    recipe = MergeRecipe(base=str(base), inputs=inputs, **fields)
    return merge(recipe, open_checkpoint(base), sources, target, MergeOptions(kernel=kernel))


def differing(target: Path, wanted: dict[str, Any]) -> list[str]:
    found = {name: value for file in target.glob("*.safetensors") for name, value in load_file(file).items()}
    assert found.keys() <= wanted.keys()
    assert all(found[name].dtype == wanted[name].dtype for name in found)
    return [name for name in found if not torch.equal(found[name], wanted[name])]


def by_peft(model: Any, *adapters: Path) -> dict[str, Any]:
    """(`Any`: transformers and PEFT are not typed.) The model after one adapter after another was loaded,
    merged and unloaded.
    """
    for adapter in adapters:
        model = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return dict(model.state_dict())


def kind_of(layers: str) -> str:
    return "layers" if layers.startswith("convolutions") else "llama"


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("layers", LAYERS)
def test_a_float32_base_is_cast_and_then_merged_into(layers: str, dtype: Any, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", kind_of(layers))
    adapter = save_adapter(base, tmp_path / "tone", **LAYERS[layers])
    wanted = by_peft(load(base).to(HALVES[dtype]), adapter)

    merged(base, [adapter], tmp_path / "out", dtype=dtype, rounding="peft")
    merged(base, [adapter], tmp_path / "once", dtype=dtype)

    assert differing(tmp_path / "out", wanted) == []
    assert differing(tmp_path / "once", wanted)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("layers", ["linear", "embedding", "dora", "convolutions"])
def test_several_adapters_are_each_rounded(layers: str, dtype: Any, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", kind_of(layers), HALVES[dtype])
    one = save_adapter(base, tmp_path / "one", **LAYERS[layers])
    other = save_adapter(base, tmp_path / "other", r=6, **LAYERS[layers])
    wanted = by_peft(load(base), one, other)

    merged(base, [one, other], tmp_path / "out", rounding="peft")
    merged(base, [one, other], tmp_path / "once")

    assert differing(tmp_path / "out", wanted) == []
    assert differing(tmp_path / "once", wanted)


@pytest.mark.parametrize("kernel", ["torch", "auto"])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("layers", LAYERS)
def test_one_adapter_on_a_base_that_keeps_its_dtype_is_the_same_either_way(
    layers: str, dtype: str, kernel: str, tmp_path: Path
) -> None:
    base = save_base(tmp_path / "base", kind_of(layers), HALVES[dtype])
    adapter = save_adapter(base, tmp_path / "tone", **LAYERS[layers])
    wanted = by_peft(load(base), adapter)

    merged(base, [adapter], tmp_path / "out", kernel, rounding="peft")
    merged(base, [adapter], tmp_path / "once", kernel)

    assert differing(tmp_path / "out", wanted) == []
    assert differing(tmp_path / "once", wanted) == []


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("method", OTHERS)
def test_a_float32_base_is_cast_first_for_other_methods_too(method: str, dtype: str, tmp_path: Path) -> None:
    case = next(cases([method], families=["llama"], dtypes=["fp32"]))
    made = make(case, tmp_path)
    wanted = by_peft(FAMILIES["llama"].load(made.base).to(HALVES[dtype]), made.adapter)

    merged(made.base, [made.adapter], tmp_path / "out", dtype=dtype, rounding="peft")

    assert differing(tmp_path / "out", wanted) == []
    shutil.rmtree(tmp_path / "out")


def test_a_recipe_without_the_option_is_written_as_before(tmp_path: Path) -> None:
    inputs = (RecipeInput(source="tone"),)

    assert "rounding" not in MergeRecipe(base="base", inputs=inputs).model_dump()
    kept = MergeRecipe(base="base", inputs=inputs, rounding="peft").model_dump_json()
    assert MergeRecipe.model_validate_json(kept).rounding == "peft"


def test_methods_other_than_sums_refuse_pefts_rounding() -> None:
    with pytest.raises(ValueError, match="rounding peft is only for sums"):
        MergeRecipe(base="base", inputs=(RecipeInput(source="tone"),), method="ties", rounding="peft")
