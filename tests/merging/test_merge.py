"""A merge writes what PEFT's merge_and_unload writes, bit for bit, as a checkpoint that transformers
loads.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.merge import MergeOptions, MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput

from .conftest import Make, merged_by_peft, peft, tensors_of, torch, transformers

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CPU = MergeOptions()
KERNELS = ["torch", "llvm"]


def merged(
    base: Path, inputs: list[tuple[Path, float]], target: Path, how: MergeOptions = CPU, **recipe: Any
) -> Any:
    written = MergeRecipe(
        base=str(base), inputs=tuple(RecipeInput(source=str(path), weight=w) for path, w in inputs), **recipe
    )
    sources = [MergeSource(WeightedAdapter(open_dir(path), weight, path.name)) for path, weight in inputs]
    return merge(written, open_checkpoint(base), sources, target, how)


def assert_same_bits(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, tensor in found.items():
        assert tensor.dtype == wanted[name].dtype, name
        assert torch.equal(tensor, wanted[name]), (name, (tensor.float() - wanted[name].float()).abs().max())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"]
)
@pytest.mark.parametrize(
    "fields",
    [
        {"r": 8, "lora_alpha": 16, "target_modules": ALL},
        {"r": 4, "lora_alpha": 11, "target_modules": ["q_proj", "down_proj"]},
        {"r": 6, "lora_alpha": 9, "use_rslora": True, "target_modules": ALL},
        {
            "r": 8,
            "lora_alpha": 16,
            "target_modules": ALL,
            "rank_pattern": {r"layers\.0\..*q_proj": 2, "down_proj": 12},
            "alpha_pattern": {"v_proj": 5},
        },
        {"r": 1, "lora_alpha": 2, "target_modules": ["v_proj"]},
    ],
    ids=["plain", "odd-scale", "rslora", "patterns", "rank-1"],
)
def test_a_merged_llama_equals_pefts_bit_for_bit(
    kernel: str, dtype: Any, fields: dict[str, Any], make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base("llama", dtype)
    adapter = make_adapter(base, **fields)
    merged(base, [(adapter, 1.0)], tmp_path / "out", MergeOptions(kernel=kernel))
    assert_same_bits(tensors_of(tmp_path / "out"), merged_by_peft(base, adapter))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_merged_gpt2_with_conv1d_layers_equals_pefts(
    kernel: str, make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base("gpt2", torch.bfloat16)
    adapter = make_adapter(
        base, r=4, lora_alpha=6, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True
    )
    merged(base, [(adapter, 1.0)], tmp_path / "out", MergeOptions(kernel=kernel))
    wanted = merged_by_peft(base, adapter)
    assert_same_bits(tensors_of(tmp_path / "out"), wanted)


def test_a_sharded_base_keeps_its_files_and_the_record_holds_their_digests(
    make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base("llama", torch.bfloat16, shard="80KB")
    adapter = make_adapter(base, r=8, lora_alpha=16, target_modules=ALL)
    record = merged(base, [(adapter, 1.0)], tmp_path / "out")
    names = sorted(path.name for path in base.glob("*.safetensors"))
    assert len(names) > 2
    assert [entry.path for entry in record.files] == names
    for entry in record.files:
        written = (tmp_path / "out" / entry.path).read_bytes()
        assert (hashlib.sha256(written).hexdigest(), len(written)) == (entry.sha256.hex, entry.size)
    assert_same_bits(tensors_of(tmp_path / "out"), merged_by_peft(base, adapter))
    beside = json.loads((tmp_path / "out" / "adaptry_merge.json").read_text())
    assert beside["inputs"][0]["weights"] == str(open_dir(adapter).weights_digest())


def test_transformers_loads_the_result_in_new_shards_and_answers_as_the_adapter(
    make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base("llama", shard="200KB")
    adapter = make_adapter(base, r=8, lora_alpha=12, target_modules=ALL)
    merged(base, [(adapter, 1.0)], tmp_path / "out", max_shard_size=1 << 20)
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors")] == ["model.safetensors"]
    tokens = torch.arange(20).view(1, 20)
    live = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), adapter)
    result = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert torch.allclose(result(tokens).logits, live(tokens).logits, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_several_adapters_are_summed_before_one_rounding(
    kernel: str, make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base("llama", torch.bfloat16)
    first = make_adapter(base, "first", r=8, lora_alpha=16, target_modules=ALL)
    second = make_adapter(base, "second", seed=2, r=4, lora_alpha=3, target_modules=["q_proj", "down_proj"])
    merged(base, [(first, 0.7), (second, -1.5)], tmp_path / "out", MergeOptions(kernel=kernel))
    found, was = tensors_of(tmp_path / "out"), tensors_of(base)
    exact = {name: tensor.double() for name, tensor in was.items()}
    for path, weight in ((first, 0.7), (second, -1.5)):
        adapter = open_dir(path)
        factors = tensors_of(path)
        for module in adapter.spec.modules:
            product = factors[module.tensors["B"]].double() @ factors[module.tensors["A"]].double()
            exact[f"{module.path}.weight"] += weight * module.scale * product
    for name, tensor in exact.items():
        rounded = tensor.to(torch.bfloat16)
        assert (found[name] == rounded).float().mean() > 0.999, name
        assert torch.allclose(found[name].double(), tensor, rtol=2**-8, atol=1e-9), name


def test_a_cast_on_the_way_rounds_the_sum_once(make_base: Make, make_adapter: Make, tmp_path: Path) -> None:
    base = make_base("llama")
    adapter = make_adapter(base, r=8, lora_alpha=16, target_modules=["q_proj"])
    merged(base, [(adapter, 1.0)], tmp_path / "out", dtype="BF16")
    wanted = {name: tensor.to(torch.bfloat16) for name, tensor in merged_by_peft(base, adapter).items()}
    assert_same_bits(tensors_of(tmp_path / "out"), wanted)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config.get("dtype", config.get("torch_dtype")) == "bfloat16"


def test_an_adapter_of_a_tied_lm_head_gives_the_result_a_separate_head(
    make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base("llama", tied=True)
    adapter = make_adapter(base, r=4, lora_alpha=8, target_modules=["lm_head", "q_proj"], embeddings=False)
    record = merged(base, [(adapter, 1.0)], tmp_path / "out")
    assert "a separate head" in record.notes[0]
    tokens = torch.arange(20).view(1, 20)
    live = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), adapter)
    result = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert torch.allclose(result(tokens).logits, live(tokens).logits, atol=1e-5)


def test_a_device_gives_the_same_result_within_rounding(
    make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base("llama", torch.bfloat16)
    adapter = make_adapter(base, r=8, lora_alpha=16, target_modules=ALL)
    merged(base, [(adapter, 1.0)], tmp_path / "out", MergeOptions(device="cpu:0"))
    wanted = merged_by_peft(base, adapter)
    for name, tensor in tensors_of(tmp_path / "out").items():
        assert torch.allclose(tensor.float(), wanted[name].float(), rtol=2**-7, atol=1e-6)
