"""Modules of audio encoders inside language models, whose unmerged adapters differ from a merge."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
from tests.checks.peft_oracle import save_trained
from tests.methods import zoo

import adaptry

KINDS = ("audioflamingo3", "moss_transcribe_diarize", "qwen2_audio", "voxtral", "voxtral_realtime")


def heard(model: Any) -> torch.Tensor | None:
    """The audio encoder's output for a sound; None if it raises an error. (`Any`: a model of
    transformers.)
    """
    inner = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    tower = inner.model.audio_tower
    length = 2 * getattr(tower.config, "max_position_embeddings", 64)
    length = 2 * getattr(tower.config, "max_source_positions", length // 2)
    features = torch.sin(torch.arange(tower.config.num_mel_bins * length) / 7.0)
    fields: dict[str, Any] = {"input_features": features.view(1, -1, length)}
    if "input_features_mask" in inspect.signature(tower.forward).parameters:
        fields["input_features_mask"] = torch.ones(1, length, dtype=torch.long)
    with torch.no_grad():
        try:
            found: torch.Tensor = tower(**fields).last_hidden_state
        except (AttributeError, RuntimeError):
            return None
    return found


@pytest.mark.slow
@pytest.mark.parametrize("target", ["conv1", "conv2", "fc1", "q_proj"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_module_whose_live_answer_differs_from_a_merge_is_reported(
    kind: str, target: str, tmp_path: Path
) -> None:
    base = zoo.save(kind, tmp_path / "base")
    model = zoo.load(kind, base)
    path = next((path for path, _ in model.named_modules() if path.endswith(f"audio_tower.{target}")), target)
    config = peft.LoraConfig(r=2, target_modules=[path], init_lora_weights=False)
    if not any(name == path or name.endswith(f".{path}") for name, _ in model.named_modules()):
        pytest.skip("the encoder has no such module")
    save_trained(model, config, tmp_path / "tone")
    assert heard(zoo.load(kind, base)) is not None

    adapted = peft.PeftModel.from_pretrained(zoo.load(kind, base), tmp_path / "tone").eval()
    live, merged = heard(adapted), heard(adapted.merge_and_unload())
    assert merged is not None
    report = adaptry.check(tmp_path / "tone", base=base, registry=tmp_path / "registry", progress=False)

    is_alike = live is not None and torch.allclose(live, merged, rtol=1e-3, atol=1e-4)
    assert ("merge_differs" in {finding.code for finding in report.findings}) is not is_alike
    assert not report.is_blocked
