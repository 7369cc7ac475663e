"""A merge counts how many tensors changed, and is refused if values became infinite or NaN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.kernels import choose_kernels
from adaptry.compute.merging.merge import MergeOptions, MergeSource, merge, plan_recipe
from adaptry.compute.merging.record import MergeRecord
from adaptry.compute.merging.streaming.virtual_checkpoint import VirtualCheckpoint
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed
from adaptry.testing.samples import tiny_base, tiny_lora

from .conftest import Make, tensors_of, torch, transformers

KERNELS = ["torch", "llvm"]
HUGE = 1_000_000_000
"""An alpha by which updates are far beyond float16, and not beyond float32."""


def merged(
    base: Path, adapter: Path, target: Path, kernel: str = "auto", weight: float = 1.0, **fields: Any
) -> MergeRecord:
    recipe = MergeRecipe(base=str(base), inputs=(RecipeInput(source="tone", weight=weight),), **fields)
    source = MergeSource(WeightedAdapter(open_dir(adapter), weight, "tone"))
    return merge(recipe, open_checkpoint(base), [source], target, MergeOptions(kernel=kernel))


def half_base(folder: Path) -> Path:
    return tiny_base(folder, hidden=32, dtype="F16", shards=2)


def with_values(base: Path, tensor: str, values: dict[int, float]) -> Path:
    """The base with different values at the start of a tensor."""
    file = base / "model.safetensors"
    tensors = load_file(file)
    for place, value in values.items():
        tensors[tensor].view(-1)[place] = value
    save_file(tensors, file, {"format": "pt"})
    return base


def trained(adapter: Path) -> Path:
    """The adapter with noise in every tensor: PEFT begins with factors of zeros."""
    file = adapter / "adapter_model.safetensors"
    torch.manual_seed(3)
    save_file(
        {name: tensor + torch.randn_like(tensor) for name, tensor in load_file(file).items()},
        file,
        {"format": "pt"},
    )
    return adapter


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_merge_with_infinite_values_is_refused_and_leaves_nothing(kernel: str, tmp_path: Path) -> None:
    base = half_base(tmp_path / "base")
    adapter = tiny_lora(tmp_path / "tone", hidden=32, alpha=HUGE)
    before = {path.name for path in tmp_path.iterdir()}

    with pytest.raises(
        CheckFailed, match=r"infinite or NaN values that the base does not have, in 4 tensors"
    ):
        merged(base, adapter, tmp_path / "out", kernel)

    assert {path.name for path in tmp_path.iterdir()} == before
    assert merged(base, adapter, tmp_path / "out", "auto", dtype="F32").changed == 4


def test_the_refusal_counts_the_values_and_names_what_to_try(tmp_path: Path) -> None:
    base = with_values(tiny_base(tmp_path / "base"), "model.norm.weight", {0: 1e6, 3: -7e4})
    adapter = tiny_lora(tmp_path / "tone")

    with pytest.raises(CheckFailed) as refused:
        merged(base, adapter, tmp_path / "out", dtype="F16")

    assert refused.value.message == (
        "the result would have 2 infinite or NaN values that the base does not have, in 1 tensor (first:"
        " model.norm.weight): values exceed the range of F16. Choose smaller weights, or --dtype float32"
        " (or bfloat16)"
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_factors_beyond_float32_are_refused(kernel: str, tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", hidden=32)
    adapter = tiny_lora(tmp_path / "tone", hidden=32)
    file = adapter / "adapter_model.safetensors"
    save_file({name: factor * 1e30 for name, factor in load_file(file).items()}, file, {"format": "pt"})

    with pytest.raises(CheckFailed, match=r"exceed the range of F32\. Choose smaller weights$"):
        merged(base, adapter, tmp_path / "out", kernel)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_infinity_and_nan_of_the_base_pass(kernel: str, dtype: str, tmp_path: Path) -> None:
    query = "model.layers.0.self_attn.q_proj.weight"
    values = {0: float("inf"), 1: float("-inf"), 2: float("nan")}
    base = with_values(tiny_base(tmp_path / "base", hidden=32, dtype=dtype), query, values)

    merged(base, tiny_lora(tmp_path / "tone", hidden=32), tmp_path / "out", kernel)

    found = tensors_of(tmp_path / "out")[query].view(-1)
    assert not found[:3].isfinite().any()
    assert found[3:].isfinite().all()


def test_a_weight_that_is_changed_as_a_whole_is_counted_too(
    make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base(dtype=torch.float16)
    adapter = trained(make_adapter(base, r=4, lora_alpha=HUGE, target_modules=["embed_tokens", "q_proj"]))

    with pytest.raises(CheckFailed, match=r"in 3 tensors \(first: model\.embed_tokens\.weight\)"):
        merged(base, adapter, tmp_path / "out")


def test_a_weight_changed_as_a_whole_is_rounded_once_to_another_dtype(
    make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base(dtype=torch.float16)
    adapter = trained(make_adapter(base, r=4, lora_alpha=HUGE, target_modules=["embed_tokens"]))
    merged(base, adapter, tmp_path / "out", dtype="F32")

    import peft

    wide = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    wanted = dict(peft.PeftModel.from_pretrained(wide, adapter).merge_and_unload().state_dict())
    for name, tensor in tensors_of(tmp_path / "out").items():
        assert torch.equal(tensor, wanted[name]), name


@pytest.mark.parametrize("targets", [["q_proj"], ["embed_tokens"]], ids=["streamed", "whole"])
def test_a_streamed_merge_stops_at_the_first_infinity_and_is_then_refused(
    targets: list[str], make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base(dtype=torch.float16)
    adapter = trained(make_adapter(base, r=4, lora_alpha=HUGE, target_modules=targets))
    recipe = MergeRecipe(base=str(base), inputs=(RecipeInput(source="tone"),))
    plan = plan_recipe(
        recipe, open_checkpoint(base), [MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "tone"))]
    )
    virtual = VirtualCheckpoint(plan, choose_kernels(), Digest.of(b"tone"), {}, tmp_path)
    size = virtual.sizes["model.safetensors"]

    with pytest.raises(CheckFailed, match="infinite or NaN"):
        for _ in virtual.read("model.safetensors", 0, size):
            pass

    with pytest.raises(CheckFailed, match="infinite or NaN"):
        next(virtual.read("model.safetensors", 0, 8))
    assert b"".join(map(bytes, virtual.read("config.json", 0, virtual.sizes["config.json"])))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_merge_that_changed_nothing_is_reported(kernel: str, tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", hidden=32, dtype="BF16")
    adapter = tiny_lora(tmp_path / "tone", hidden=32)

    record = merged(base, adapter, tmp_path / "out", kernel, weight=1e-9)

    assert (record.baked, record.changed) == (4, 0)
    assert record.warnings[0].startswith("no value changed: the result has the base's weights")
    assert json.loads((tmp_path / "out" / "adaptry_merge.json").read_text())["changed"] == 0
    found, wanted = tensors_of(tmp_path / "out"), tensors_of(base)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_cast_alone_does_not_count_as_a_change(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", hidden=32)
    adapter = tiny_lora(tmp_path / "tone", hidden=32)

    assert merged(base, adapter, tmp_path / "lost", weight=1e-9, dtype="BF16").changed == 0
    assert merged(base, adapter, tmp_path / "out", dtype="BF16").changed == 4


def test_only_the_tensors_that_changed_are_counted(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", hidden=32)
    adapter = tiny_lora(tmp_path / "tone", hidden=32)
    file = adapter / "adapter_model.safetensors"
    factors = load_file(file)
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
    save_file({**factors, name: torch.zeros_like(factors[name])}, file, {"format": "pt"})

    record = merged(base, adapter, tmp_path / "out")

    assert (record.baked, record.changed, record.warnings) == (4, 3, ())
