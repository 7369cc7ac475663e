"""A merge counts the elements that differ from the base, like torch, and warns if rounding loses updates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.merge import MergeOptions, MergeSource, merge
from adaptry.compute.merging.record import MergeRecord
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.errors import CheckFailed, Unsupported

from ..methods.corpus import NotByPeft, cases, make
from ..methods.variants import VARIANTS
from .conftest import Make, peft, torch, transformers

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
SIZES = [1e-9, 1e-6, 1e-5, 1e-4, 1e-3, 1e-1]
"""Factors for the updates, from those of which nothing is left in bfloat16 to those that are left."""

ADAPTERS: dict[str, dict[str, Any]] = {
    "linear": {"target_modules": ["q_proj", "down_proj"]},
    "dora": {"target_modules": ["q_proj", "v_proj"], "use_dora": True},
    "embedding": {"target_modules": ["embed_tokens", "k_proj"]},
    "saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
}


def merged(
    base: Path, adapter: Path, target: Path, kernel: str = "auto", count: int = 1, **fields: Any
) -> MergeRecord:
    recipe = MergeRecipe(base=str(base), inputs=(RecipeInput(source="tone"),) * count, **fields)
    source = MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "tone"))
    return merge(recipe, open_checkpoint(base), [source] * count, target, MergeOptions(kernel=kernel))


def scaled(adapter: Path, factor: float) -> Path:
    """The adapter with its updates multiplied by the factor."""
    file = adapter / "adapter_model.safetensors"
    tensors = {
        name: tensor * factor if "lora_B" in name or "embedding_B" in name else tensor
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, file, {"format": "pt"})
    return adapter


def with_odd_values(base: Path) -> Path:
    """The base with zeros of both signs, and with the smallest numbers."""
    file = base / "model.safetensors"
    tensors = load_file(file)
    for tensor in tensors.values():
        flat = tensor.view(-1)
        flat[:64:2], flat[1:64:4], flat[3:64:4] = 0.0, -0.0, torch.finfo(tensor.dtype).smallest_normal / 2
    save_file(tensors, file, {"format": "pt"})
    return base


def counted_by_torch(base: Path, result: Path, record: MergeRecord) -> tuple[int, int]:
    """The number of elements in the weights that may change, and of those that differ, as compared by
    torch.
    """
    before, after = load_file(base / "model.safetensors"), load_file(result / "model.safetensors")
    adapted = [name for name in after if not torch.equal(after[name], before[name].to(after[name].dtype))]
    differing = [int((after[name] != before[name].to(after[name].dtype)).sum()) for name in adapted]
    assert len(adapted) == record.changed
    return sum(after[name].numel() for name in adapted), sum(differing)


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", ["auto", "torch"])
def test_the_counts_are_those_of_torch(
    kernel: str, dtype: str, kind: str, make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = with_odd_values(make_base(dtype=DTYPES[dtype]))
    adapter = make_adapter(base, r=4, **ADAPTERS[kind])
    for number, size in enumerate(SIZES):
        target = tmp_path / f"out-{number}"
        record = merged(base, scaled(adapter, size), target, kernel)
        scaled(adapter, 1 / size)

        elements, changed = counted_by_torch(base, target, record)

        assert record.changed_elements == changed
        if record.changed == record.baked:
            assert record.elements == elements


@pytest.mark.parametrize("fields", [{"dtype": "BF16"}, {"rounding": "peft", "dtype": "F16"}, {"count": 2}])
def test_the_counts_of_other_merges_are_those_of_torch(
    fields: dict[str, Any], make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = with_odd_values(make_base(dtype=torch.float32 if "dtype" in fields else torch.bfloat16))
    adapter = scaled(make_adapter(base, r=4, target_modules=["q_proj", "down_proj"]), 1e-3)

    record = merged(base, adapter, tmp_path / "out", **fields)

    assert (record.elements, record.changed_elements) == counted_by_torch(base, tmp_path / "out", record)


def test_an_update_that_rounding_loses_is_reported_with_a_remedy_that_keeps_it(
    make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base(dtype=torch.bfloat16)
    adapter = scaled(make_adapter(base, r=4, target_modules=["q_proj", "down_proj"]), 1e-4)

    record = merged(base, adapter, tmp_path / "out")

    assert record.baked == record.changed == 4
    (warning,) = record.warnings
    assert warning.startswith("in 4 of 4 weights, most of the update was lost (model.layers.N.mlp.down_proj")
    assert "merge with --dtype float32" in warning
    written = json.loads((tmp_path / "out" / "adaptry_merge.json").read_text())
    assert len(written["lost_to_rounding"]) == 4

    assert merged(base, adapter, tmp_path / "wide", dtype="F32").warnings == ()
    assert share_of_the_update(base, adapter, tmp_path / "out") < 0.25
    assert share_of_the_update(base, adapter, tmp_path / "wide") > 0.99


def share_of_the_update(base: Path, adapter: Path, result: Path) -> float:
    """The share of PEFT's update that is in the result, computed as a projection."""
    wide = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in wide.state_dict().items()}
    trained = peft.PeftModel.from_pretrained(wide, adapter).merge_and_unload().state_dict()
    after = load_file(result / "model.safetensors")
    along = whole = 0.0
    for name, tensor in trained.items():
        update = (tensor - before[name]).double()
        along += (
            float((update * (after[name].double() - before[name].double())).sum()) if name in after else 0.0
        )
        whole += float((update * update).sum())
    return along / whole


def test_only_weights_that_lose_most_of_their_update_are_named(
    make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base(dtype=torch.bfloat16)
    adapter = make_adapter(base, r=4, target_modules=["q_proj", "v_proj"])
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file(
        {name: tensor * 1e-4 if "v_proj.lora_B" in name else tensor for name, tensor in tensors.items()},
        file,
        {"format": "pt"},
    )

    lost = merged(base, adapter, tmp_path / "out").lost_to_rounding

    assert lost == tuple(f"model.layers.{number}.self_attn.v_proj.weight" for number in range(2))


@pytest.mark.parametrize("kind", ["rows", "embedding", "shira"])
def test_updates_of_few_elements_are_not_reported_as_lost(
    kind: str, make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base(dtype=torch.float32)
    if kind == "shira":
        model = transformers.AutoModelForCausalLM.from_pretrained(base)
        sparse = peft.get_peft_model(model, peft.ShiraConfig(r=1, target_modules=["q_proj"]))
        for name, parameter in sparse.named_parameters():
            if "shira" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        adapter = tmp_path / "shira"
        sparse.save_pretrained(adapter)
    else:
        target = {"rows": "q_proj", "embedding": "embed_tokens"}[kind]
        adapter = make_adapter(base, r=4, target_modules=[target], embeddings=False)
        file = adapter / "adapter_model.safetensors"
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if "lora_B" in name:
                tensor[2:] = 0  # the rows of one of several fused outputs
            elif "embedding_A" in name:
                tensor[:, 2:] = 0  # tokens that the training data does not have
                tensor[:, :2] = 0.1
        save_file(tensors, file, {"format": "pt"})

    record = merged(base, adapter, tmp_path / "out")

    assert record.elements is not None
    assert record.changed_elements is not None
    assert 0 < record.changed_elements < record.elements / 10
    assert (record.lost_to_rounding, record.warnings) == ((), ())


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(VARIANTS))
def test_no_method_with_large_updates_is_reported_as_lost(method: str, tmp_path: Path) -> None:
    for case in cases([method], ["llama"], ["fp32"]):
        try:
            made = make(case, tmp_path)
            record = merged(made.base, made.adapter, tmp_path / "out" / str(case))
        except (NotByPeft, Unsupported, CheckFailed):
            continue
        assert record.lost_to_rounding == (), str(case)
