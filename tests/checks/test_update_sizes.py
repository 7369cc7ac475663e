"""Updates that are too large or too small, with PEFT's answers and its merge as the reference."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import adaptry
from adaptry.checks.weights import check_weights

TARGETS = {"attention": ["q_proj", "v_proj"], "all": "all-linear", "embedding": ["embed_tokens"]}
# (`Any`: a transformers model.)


@pytest.fixture(scope="module")
def base() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    return LlamaForCausalLM(config).eval()


def adapted(base: Any, targets: object, factor: float, *, rslora: bool = False, rank: int = 8) -> Any:
    """A LoRA with updates of the usual size after training, times the factor."""
    torch.manual_seed(1)
    config = peft.LoraConfig(r=rank, lora_alpha=16, target_modules=targets, use_rslora=rslora)
    model = peft.get_peft_model(copy.deepcopy(base), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "lora_embedding_A" in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.01 * factor)
    return model


def answers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.arange(2, 34).reshape(2, 16)).logits
    return logits


def codes(model: Any, folder: Path) -> set[str]:
    model.save_pretrained(folder)
    return {finding.code for finding in check_weights(adaptry.open_dir(folder))}


CASES = list(itertools.product(TARGETS, [False, True], [2, 16]))


@pytest.mark.parametrize(("targets", "rslora", "rank"), CASES)
@pytest.mark.parametrize("factor", [1e-4, 1, 100])
def test_updates_of_usual_sizes_are_fine(
    base: Any, factor: float, targets: str, rslora: bool, rank: int, tmp_path: Path
) -> None:
    model = adapted(base, TARGETS[targets], factor, rslora=rslora, rank=rank)
    assert not torch.equal(answers(model), answers(base))
    assert codes(model, tmp_path) == set()


@pytest.mark.parametrize(("targets", "rslora", "rank"), CASES)
def test_updates_that_change_no_answer_and_no_weight_are_found(
    base: Any, targets: str, rslora: bool, rank: int, tmp_path: Path
) -> None:
    model = adapted(base, TARGETS[targets], 1e-28, rslora=rslora, rank=rank)
    # With an embedding, PEFT saves the embedding's weight too, which can only be compared with a base.
    assert codes(model, tmp_path) == {"modules_untrained" if targets == "embedding" else "untrained"}
    before = answers(base)
    assert torch.equal(answers(model), before)
    assert torch.equal(answers(model.merge_and_unload()), before)


@pytest.mark.parametrize(("targets", "rslora", "rank"), CASES)
def test_updates_beyond_float16_are_blocked(
    base: Any, targets: str, rslora: bool, rank: int, tmp_path: Path
) -> None:
    model = adapted(base, TARGETS[targets], 1e9, rslora=rslora, rank=rank)
    assert codes(model, tmp_path) == {"updates_overflow"}
    merged = model.merge_and_unload().half()
    assert any(not torch.isfinite(parameter).all() for parameter in merged.parameters())
    assert not torch.isfinite(answers(merged)).all()


@pytest.mark.parametrize(("targets", "rslora", "rank"), CASES)
def test_updates_larger_than_any_weight_are_reported(
    base: Any, targets: str, rslora: bool, rank: int, tmp_path: Path
) -> None:
    model = adapted(base, TARGETS[targets], 1e5, rslora=rslora, rank=rank)
    assert codes(model, tmp_path) == {"updates_large"}
    answered = answers(model).argmax(-1)
    assert (answered == answers(base).argmax(-1)).float().mean() < 0.3  # noise


def test_one_diverged_module_is_named(base: Any, tmp_path: Path) -> None:
    model = adapted(base, ["q_proj"], 1)
    with torch.no_grad():
        model.base_model.model.model.layers[1].self_attn.q_proj.lora_B["default"].weight.mul_(1e9)
    model.save_pretrained(tmp_path)
    (found,) = check_weights(adaptry.open_dir(tmp_path))
    assert (found.code, found.modules) == ("updates_overflow", ("model.layers.1.self_attn.q_proj",))
