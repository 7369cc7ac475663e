"""Lists of modules in `modules_to_save`: PEFT refuses a `ModuleList`, and saves a `Sequential`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import transformers as t
from tests.checks.peft_oracle import save_base, save_trained
from tests.methods import zoo
from tests.methods.mutations import PREFIX

import adaptry


def reader() -> Any:
    """A model whose layers are a `Sequential`. (`Any`: transformers is not typed.)"""
    config = t.MgpstrConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=[16, 16], max_token_length=5,
        num_character_labels=8, num_bpe_labels=8, num_wordpiece_labels=8,
    )  # fmt: skip
    return t.MgpstrForSceneTextRecognition(config)


def codes(folder: Path, base: Path) -> set[str]:
    found = adaptry.check(folder, base=base, registry=folder.parent / "registry", progress=False)
    return {finding.code for finding in found.findings if finding.severity == "blocks"}


@pytest.mark.slow
def test_a_sequential_of_layers_is_saved_as_peft_saves_it(tmp_path: Path) -> None:
    save_base(reader(), tmp_path / "base")
    model = t.MgpstrForSceneTextRecognition.from_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=2, target_modules=["char_head"], modules_to_save=["blocks"])
    save_trained(model, config, tmp_path / "tone")
    assert codes(tmp_path / "tone", tmp_path / "base") == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "target", "saved"),
    [
        ("xlm", "out_lin", "layer_norm1"),
        ("xlm", "out_lin", "ffns"),
        ("wav2vec2", "q_proj", "conv_layers"),
        ("vit_mae", "q_proj", "decoder_layers"),
    ],
)
def test_a_list_is_refused_as_peft_refuses_it(kind: str, target: str, saved: str, tmp_path: Path) -> None:
    import json

    from safetensors.torch import load_file, save_file

    base = zoo.save(kind, tmp_path / "base")
    save_trained(zoo.load(kind, base), peft.LoraConfig(r=2, target_modules=[target]), tmp_path / "tone")
    config, weights = (
        tmp_path / "tone" / "adapter_config.json",
        tmp_path / "tone" / "adapter_model.safetensors",
    )
    config.write_text(json.dumps({**json.loads(config.read_text()), "modules_to_save": [saved]}))
    parts = load_file(base / "model.safetensors").items()
    whole = {f"{PREFIX}{name}": value for name, value in parts if f".{saved}." in f".{name}"}
    save_file(load_file(weights) | whole, weights)

    with pytest.raises(TypeError, match="modules_to_save cannot be applied to modules of type"):
        peft.PeftModel.from_pretrained(zoo.load(kind, base), tmp_path / "tone")
    assert "peft_refuses" in codes(tmp_path / "tone", base)
