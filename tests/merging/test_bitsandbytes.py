"""The dequantised copy of a base compared with bitsandbytes: real checkpoints, its dequantisation, and PEFT's
merge into the result.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.header import TensorInfo
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.fingerprinting.match import match_bases
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.bases.quantised import PackedWeight, open_logical_view
from adaptry.compute.merging.dequantisation import dequantise
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.compute.tensors.adapter_tensors import as_tensor

from .conftest import peft, tensors_of, torch, transformers

bitsandbytes = pytest.importorskip("bitsandbytes")

KINDS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4-nested": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "int8": {"load_in_8bit": True},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "head": {"modules_to_save": ["lm_head"]},
}
# Rows consist of whole blocks: 0.50's AVX-512 kernel is wrong for other rows (`merging.dequantising`).
LLAMA = transformers.LlamaConfig(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=96, max_position_embeddings=64, tie_word_embeddings=False,
)  # fmt: skip
GPT2 = transformers.GPT2Config(
    n_embd=64, n_layer=2, n_head=2, vocab_size=96, n_positions=64, bos_token_id=0, eos_token_id=0
)


def quantised(folder: Path, config: Any, kind: str) -> tuple[Path, Path]:
    """A random bfloat16 model, saved unchanged, and saved quantised by transformers and bitsandbytes."""
    torch.manual_seed(0)
    original, copy = folder / "original", folder / "copy"
    transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(original)
    asked = transformers.BitsAndBytesConfig(**KINDS[kind])
    transformers.AutoModelForCausalLM.from_pretrained(
        original, quantization_config=asked, dtype=torch.bfloat16, device_map="cpu"
    ).save_pretrained(copy)
    return original, copy


def trained(base: Path, folder: Path, **fields: Any) -> Path:
    """A LoRA on the quantised model, whose B is not zero."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto", device_map="cpu")
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=8, **fields))
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder


def merged_by_library(base: Path, adapter: Path) -> dict[str, Any]:
    """Dequantised by transformers, then merged by PEFT."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base, dtype="auto", device_map="cpu"
    ).dequantize()
    return dict(peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict())


def merged_here(base: Path, adapter: Path, target: Path) -> dict[str, Any]:
    recipe = MergeRecipe(base="./copy", inputs=(RecipeInput(source="./tone"),), base_copy="dequantised")
    merge(
        recipe,
        open_checkpoint(base),
        [MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "./tone"))],
        target,
    )
    return tensors_of(target)


def only(folder: Path, tensors: dict[str, Any]) -> PackedWeight:
    """The only packed weight of a checkpoint with these tensors."""
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (packed,) = open_logical_view(open_checkpoint(folder)).packed.values()
    return packed


def computed(folder: Path, packed: PackedWeight) -> Any:
    def read(shard: str, info: TensorInfo) -> Any:
        return as_tensor((folder / shard).read_bytes()[info.start : info.end], info)

    return dequantise(packed, read)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("blocksize", [32, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["nf4", "fp4"])
def test_four_bits_are_dequantised_as_bitsandbytes_does_it(
    tmp_path: Path, method: str, dtype: Any, blocksize: int, nested: bool
) -> None:
    torch.manual_seed(1)
    weight = (torch.randn(48, 256) * 0.02).to(dtype)
    codes, state = bitsandbytes.functional.quantize_4bit(
        weight, blocksize=blocksize, quant_type=method, compress_statistics=nested
    )
    beside = {f"m.weight.{key}": tensor.contiguous() for key, tensor in state.as_dict(packed=True).items()}
    packed = only(tmp_path, {"m.weight": codes, **beside})
    assert torch.equal(computed(tmp_path, packed), bitsandbytes.functional.dequantize_4bit(codes, state))


def test_eight_bits_are_dequantised_as_bitsandbytes_does_it(tmp_path: Path) -> None:
    torch.manual_seed(1)
    codes, scales, _ = bitsandbytes.functional.int8_vectorwise_quant((torch.randn(33, 50) * 0.02).half())
    packed = only(tmp_path, {"m.weight": codes, "m.SCB": scales, "m.weight_format": torch.tensor(0).byte()})
    wanted = bitsandbytes.functional.int8_vectorwise_dequant(codes, scales)
    assert torch.equal(computed(tmp_path, packed), wanted)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_merge_equals_pefts_into_the_weights_that_transformers_dequantises(
    tmp_path: Path, kind: str, variant: str
) -> None:
    original, copy = quantised(tmp_path, LLAMA, kind)
    adapter = trained(copy, tmp_path / "tone", target_modules=["q_proj", "down_proj"], **VARIANTS[variant])
    result, wanted = merged_here(copy, adapter, tmp_path / "merged"), merged_by_library(copy, adapter)
    assert result.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(result[name], wanted[name])] == []
    found = match_bases(fingerprint(open_checkpoint(copy)), fingerprint(open_checkpoint(original)))
    assert found.level == "cast"
    assert "the samples of all 14 packed ones match its codes" in found.evidence


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_conv1d_is_transposed_back_into_its_models_form(tmp_path: Path, kind: str) -> None:
    original, copy = quantised(tmp_path, GPT2, kind)
    adapter = trained(copy, tmp_path / "tone", target_modules=["c_attn", "c_proj"])
    result, wanted = merged_here(copy, adapter, tmp_path / "merged"), merged_by_library(copy, adapter)
    for name, tensor in result.items():
        is_transposed = ".c_" in name and name.endswith(".weight")
        assert torch.equal(tensor, wanted[name].T if is_transposed else wanted[name]), name
    shapes = {name: info.shape for name, info in open_checkpoint(original).tensors.items()}
    assert {name: info.shape for name, info in open_checkpoint(tmp_path / "merged").tensors.items()} == shapes
    assert (
        match_bases(fingerprint(open_checkpoint(copy)), fingerprint(open_checkpoint(original))).level
        == "cast"
    )
