"""LoRAs that began with `init_lora_weights` "orthogonal": PEFT shows which of them change nothing."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import adaptry
from adaptry.checks.weights import check_weights

TARGETS = ["q_proj", "v_proj", "down_proj"]


def adapted(dtype: torch.dtype = torch.float32, **fields: Any) -> peft.PeftModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    base = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=64)).to(dtype)
    settings = {"r": 4, "lora_alpha": 16, "target_modules": TARGETS, "init_lora_weights": "orthogonal"}
    return peft.get_peft_model(base, peft.LoraConfig(**{**settings, **fields}), autocast_adapter_dtype=False)


def difference(model: peft.PeftModel) -> float:
    """The size of the adapter's change of the logits."""
    tokens = torch.arange(24).reshape(1, -1)
    with torch.no_grad():
        live = model(tokens).logits
        with model.disable_adapter():
            return float((live - model(tokens).logits).abs().max())


def codes(model: peft.PeftModel, folder: Path) -> set[str]:
    model.save_pretrained(folder)
    found = check_weights(adaptry.open_dir(folder))
    return {finding.code for finding in found} & {"untrained", "modules_untrained", "updates_zero"}


@pytest.mark.parametrize(
    "fields", [{"r": 2}, {"r": 16}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 8}}]
)
def test_an_adapter_saved_before_training_is_found(tmp_path: Path, fields: dict[str, Any]) -> None:
    model = adapted(**fields)
    assert difference(model) < 1e-5
    assert codes(model, tmp_path) == {"untrained"}


@pytest.mark.parametrize("rate", [1e-2, 1e-5])
@pytest.mark.parametrize("factor", ["lora_A", "lora_B", "lora_"])
def test_an_adapter_after_one_step_of_training_gives_no_finding(
    tmp_path: Path, rate: float, factor: str
) -> None:
    model = adapted()
    trained = [parameter for name, parameter in model.named_parameters() if factor in name]
    step = torch.optim.AdamW(trained, lr=rate)
    tokens = torch.arange(24).reshape(1, -1)
    model(tokens, labels=tokens).loss.backward()
    step.step()
    assert codes(model, tmp_path) == set()


@pytest.mark.parametrize("seed", range(8))
def test_exactly_the_modules_that_were_not_trained_are_named(tmp_path: Path, seed: int) -> None:
    model, rng = adapted(), random.Random(seed)
    layers = {
        path: module
        for path, module in model.base_model.model.named_modules()
        if isinstance(module, peft.tuners.lora.Linear)
    }
    trained = rng.sample(sorted(layers), rng.randrange(1, len(layers)))
    for path in trained:
        with torch.no_grad():
            factor = rng.choice([layers[path].lora_A, layers[path].lora_B])["default"].weight
            factor += torch.randn_like(factor) * 1e-4
    model.save_pretrained(tmp_path)
    (found,) = check_weights(adaptry.open_dir(tmp_path))
    assert found.code == "modules_untrained"
    assert set(found.modules) == layers.keys() - set(trained)


def test_a_rounded_start_that_changes_the_model_is_not_called_untrained(tmp_path: Path) -> None:
    model = adapted(torch.bfloat16)
    assert difference(model) > 0
    assert codes(model, tmp_path) == set()
