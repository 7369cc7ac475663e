"""Modules that a model does not call, with PEFT as the reference: it refuses them, or adapts them without any
effect.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import peft
import pytest
import torch
from peft.tuners import tuners_utils
from transformers import (
    AutoModelForCausalLM,
    FalconMambaConfig,
    JambaConfig,
    MambaConfig,
)

import adaptry
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.extraction.extracted_adapter import build_extracted_adapter
from adaptry.compute.extraction.plan import plan_extraction
from adaptry.compute.extraction.recipe import ExtractRecipe
from adaptry.compute.lazy_adapters.folder_writer import write_adapter

SIZES: dict[str, Any] = {  # (`Any`: transformers' fields.)
    "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4,
    "pad_token_id": 0,
}  # fmt: skip
ATTENTION = {"intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}
JAMBA = {
    "mamba_dt_rank": 4,
    "mamba_d_state": 4,
    "num_experts": 2,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
}
CONFIGS = {
    "mamba": MambaConfig(**SIZES),
    "falcon_mamba": FalconMambaConfig(**SIZES),
    "jamba": JambaConfig(**SIZES, **ATTENTION, **JAMBA, use_mamba_kernels=False),
}


def save(kind: str, folder: Path, targets: list[str]) -> None:
    """Saves a base and a LoRA of it, without PEFT's check for these models, which earlier versions lacked."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[kind]))
    model.save_pretrained(folder / "base")
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=64, target_modules=targets, init_lora_weights=False
    )
    with patch.object(tuners_utils, "_check_lora_target_modules_mamba"):
        peft.get_peft_model(model, config).save_pretrained(folder / "tone")


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder / "base").eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(1, 9).unsqueeze(0), use_cache=False).logits
    return found


def codes(folder: Path) -> set[str]:
    found = adaptry.check(folder / "tone", base=folder / "base", registry=folder / "registry", progress=False)
    return {finding.code for finding in found.findings}


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba"])
@pytest.mark.parametrize("targets", [["in_proj", "out_proj"], ["out_proj"]], ids=str)
def test_a_module_that_peft_refuses_is_blocked(kind: str, targets: list[str], tmp_path: Path) -> None:
    save(kind, tmp_path, targets)
    with pytest.raises(ValueError, match="incompatible with Mamba"):
        peft.PeftModel.from_pretrained(load(tmp_path), tmp_path / "tone")
    assert "peft_refuses" in codes(tmp_path)


def test_the_same_names_in_another_model_are_fine(tmp_path: Path) -> None:
    save("jamba", tmp_path, ["out_proj"])
    live = peft.PeftModel.from_pretrained(load(tmp_path), tmp_path / "tone")
    assert not torch.equal(logits(live), logits(load(tmp_path)))
    assert codes(tmp_path) == set()


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("target", ["dt_proj", "x_proj", "in_proj"])
def test_an_adapted_module_that_the_model_does_not_call_is_found(
    kind: str, target: str, tmp_path: Path
) -> None:
    save(kind, tmp_path, [target])
    live = peft.PeftModel.from_pretrained(load(tmp_path), tmp_path / "tone")
    base, before = logits(load(tmp_path)), logits(live)
    is_bypassed = torch.allclose(before, base, rtol=0, atol=1e-6)
    assert is_bypassed is (target == "dt_proj")
    assert ("modules_bypassed" in codes(tmp_path)) is is_bypassed
    assert not torch.allclose(logits(live.merge_and_unload()), base, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba"])
def test_an_extracted_lora_gives_the_fine_tune_in_peft(kind: str, tmp_path: Path) -> None:
    save(kind, tmp_path, ["in_proj"])
    fine = load(tmp_path)
    for name, parameter in fine.named_parameters():
        if name.endswith(".weight"):
            parameter.data += torch.randn(parameter.shape) * 0.05
    fine.save_pretrained(tmp_path / "fine")
    base = tmp_path / "base"

    plan = plan_extraction(ExtractRecipe(rank=64), open_checkpoint(base), open_checkpoint(tmp_path / "fine"))
    write_adapter(build_extracted_adapter(plan, str(base)), tmp_path / "lora")

    live = peft.PeftModel.from_pretrained(load(tmp_path), tmp_path / "lora")
    assert torch.allclose(logits(live), logits(fine), rtol=0, atol=1e-4)
