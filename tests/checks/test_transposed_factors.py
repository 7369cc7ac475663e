"""Factors for the transposed weight, with PEFT as the reference: it refuses them, so they are blocked.

Converters that mix up up_proj and down_proj, or the two factors of a tool with other conventions, write such
files. Shapes alone do not distinguish them from factors for a `Conv1D`; the class of the base's modules does.
"""

from __future__ import annotations

import re
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import adaptry

LLAMA = LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1,
)  # fmt: skip
GPT2 = GPT2Config(vocab_size=32, n_embd=16, n_inner=24, n_layer=1, n_head=2, n_positions=16)


def save(folder: Path, targets: list[str], swap: dict[str, str], *, is_gpt2: bool = False) -> None:
    """Saves a base and a LoRA of it, in whose tensor names the words of `swap` are replaced."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2) if is_gpt2 else LlamaForCausalLM(LLAMA)
    model.save_pretrained(folder / "base")
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=targets, init_lora_weights=False, fan_in_fan_out=is_gpt2
    )
    peft.get_peft_model(model, config).save_pretrained(folder / "tone")
    path = folder / "tone" / "adapter_model.safetensors"
    pattern = re.compile("|".join(swap) or "(?!)")
    tensors = {
        pattern.sub(lambda found: swap[found[0]], name): each for name, each in load_file(path).items()
    }
    if "lora_A" in swap:
        tensors = {name: each.T.contiguous() for name, each in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})


def is_loaded(folder: Path) -> bool:
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    try:
        peft.PeftModel.from_pretrained(base, folder / "tone")
    except RuntimeError as error:
        assert "size mismatch" in str(error)
        return False
    return True


def is_blocked(folder: Path) -> bool:
    found = adaptry.check(folder / "tone", base=folder / "base", registry=folder / "registry", progress=False)
    return found.is_blocked


UP_AND_DOWN = {"up_proj": "down_proj", "down_proj": "up_proj"}
FACTORS = {"lora_A": "lora_B", "lora_B": "lora_A"}


@pytest.mark.parametrize(
    ("targets", "swap"),
    [
        (["up_proj", "down_proj"], UP_AND_DOWN),
        (["up_proj", "down_proj"], FACTORS),
        (["v_proj"], FACTORS),
        (["up_proj", "down_proj"], {}),
    ],
    ids=str,
)
def test_factors_of_a_transposed_linear_layer_are_blocked(
    targets: list[str], swap: dict[str, str], tmp_path: Path
) -> None:
    save(tmp_path, targets, swap)
    assert (is_blocked(tmp_path), is_loaded(tmp_path)) == (bool(swap), not swap)


@pytest.mark.parametrize("swap", [FACTORS, {}], ids=str)
def test_factors_of_a_transposed_conv1d_are_blocked(swap: dict[str, str], tmp_path: Path) -> None:
    save(tmp_path, ["c_attn", "c_fc"], swap, is_gpt2=True)
    assert (is_blocked(tmp_path), is_loaded(tmp_path)) == (bool(swap), not swap)
