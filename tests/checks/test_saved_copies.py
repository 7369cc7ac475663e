"""The copy of an embedding that PEFT saves with an update of the embedding, with PEFT as the reference.

If the copy is saved while the adapter is merged, it contains the update, and PEFT adds the update again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

import adaptry
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.operations.base_registry import register_base
from adaptry.testing.samples import tiny_base

TARGETS = (["embed_tokens"], ["lm_head"], ["q_proj", "embed_tokens"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("copies") / "base")


def load(base: Path) -> Any:  # (`Any`: transformers is not typed.)
    return AutoModelForCausalLM.from_pretrained(base)


def train(base: Path, folder: Path, *, is_merged: bool = False, **fields: Any) -> torch.Tensor:
    """Saves a trained adapter of `base`, and returns the logits of the live model. (`Any`: PEFT's fields.)"""
    torch.manual_seed(0)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, **{"init_lora_weights": False, **fields})
    model = peft.get_peft_model(load(base), config)
    if is_merged:
        model.merge_adapter()
    model.save_pretrained(folder, save_embedding_layers=True)
    return logits(model)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.arange(1, 9).unsqueeze(0)).logits
    return found


def loaded(base: Path, folder: Path) -> torch.Tensor:
    return logits(peft.PeftModel.from_pretrained(load(base), folder))


def codes(base: Path, folder: Path) -> set[str]:
    found = adaptry.check(folder, base=base, registry=folder.parent / "registry", progress=False)
    return {finding.code for finding in found.findings}


@pytest.mark.parametrize("targets", TARGETS, ids=str)
def test_a_copy_saved_while_merged_is_found_since_peft_applies_the_update_twice(
    base: Path, tmp_path: Path, targets: list[str]
) -> None:
    trained = train(base, tmp_path / "tone", is_merged=True, target_modules=targets)
    assert not torch.allclose(loaded(base, tmp_path / "tone"), trained, rtol=0, atol=1e-6)
    assert "saved_copy_differs" in codes(base, tmp_path / "tone")


@pytest.mark.parametrize("fields", [{}, {"use_dora": True}, {"init_lora_weights": "pissa"}], ids=str)
@pytest.mark.parametrize("targets", TARGETS, ids=str)
def test_the_copy_of_an_unmerged_model_equals_the_base(
    base: Path, tmp_path: Path, targets: list[str], fields: dict[str, Any]
) -> None:
    trained = train(base, tmp_path / "tone", target_modules=targets, **{"lora_alpha": 8, **fields})
    assert torch.allclose(loaded(base, tmp_path / "tone"), trained, rtol=0, atol=1e-6)
    assert "saved_copy_differs" not in codes(base, tmp_path / "tone")


def test_an_embedding_that_was_trained_whole_may_differ(base: Path, tmp_path: Path) -> None:
    model = peft.get_peft_model(
        load(base),
        peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1
    model.save_pretrained(tmp_path / "tone")
    assert "saved_copy_differs" not in codes(base, tmp_path / "tone")


def test_the_copy_of_another_base_is_found(base: Path, tmp_path: Path) -> None:
    other = tiny_base(tmp_path / "other", seed=7)
    train(other, tmp_path / "tone", target_modules=["embed_tokens"])
    assert "saved_copy_differs" in codes(base, tmp_path / "tone")
    assert "saved_copy_differs" not in codes(other, tmp_path / "tone")


def test_a_push_finds_a_changed_copy(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "tone", is_merged=True, target_modules=["embed_tokens"])
    with adaptry.connect(tmp_path / "registry") as registry:
        register_base(registry, open_checkpoint(base), ("org/tiny",))
        pushed = adaptry.push(registry, tmp_path / "tone", "acme/tone", base="org/tiny", progress=False)
    assert "saved_copy_differs" in {finding.code for finding in pushed.report.findings}
