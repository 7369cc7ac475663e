"""Families whose weights have other names in a checkpoint than in transformers' model: their adapters are
bound by the names in memory, and merged as PEFT merges them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
import transformers
from safetensors.torch import load_file
from tests.checks.peft_oracle import save_base, save_trained
from tests.methods import zoo
from tests.methods.peft_comparison import ask_us, write

FAMILIES = {
    "altclip": ["query", "fc1", "q_proj"],
    "apertus1p5_text": ["q_proj", "down_proj"],
    "cohere_asr": ["q_proj", "fc1", "linear1", "relative_k_proj"],
    "lfm3": ["in_proj", "w1"],
    "paddleocr_vl": ["q_proj", "linear_1", "fc1"],
    "pixio": ["q_proj", "o_proj", "fc1", "fc2"],
    "timesfm2_5": ["fc1", "fc2", "q_proj"],
    "ultrabert": ["q_proj", "down_proj", "linear1"],
    "video_llava": ["q_proj", "fc1", "linear_1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_an_adapter_of_a_renamed_family_is_merged_bit_by_bit_as_peft_merges_it(
    kind: str, tmp_path: Path
) -> None:
    base = zoo.save(kind, tmp_path / "base")
    save_trained(zoo.load(kind, base), peft.LoraConfig(r=2, target_modules=FAMILIES[kind]), tmp_path / "tone")
    ours = ask_us(base, tmp_path / "tone", tmp_path / "merged")
    assert (ours.blocked, ours.told, ours.refusal) == ((), (), "")
    assert ours.folder is not None

    live = peft.PeftModel.from_pretrained(zoo.load(kind, base), tmp_path / "tone")
    theirs = live.merge_and_unload().state_dict()
    mine = zoo.load(kind, ours.folder).state_dict()
    assert mine.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []
    before = zoo.load(kind, base).state_dict()
    assert any(not torch.equal(before[name], theirs[name]) for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "paddleocr_vl"])
def test_factors_under_names_that_the_model_lacks_are_reported(kind: str, tmp_path: Path) -> None:
    base = zoo.save(kind, tmp_path / "base")
    save_trained(zoo.load(kind, base), peft.LoraConfig(r=2, target_modules=FAMILIES[kind]), tmp_path / "tone")
    tensors = load_file(tmp_path / "tone" / "adapter_model.safetensors")
    config = json.loads((tmp_path / "tone" / "adapter_config.json").read_text())
    wrong = {name.replace("base_model.model.", "base_model.model.x.", 1): tensors[name] for name in tensors}
    adapter = write(tmp_path / "wrong", wrong, config)
    live = peft.PeftModel.from_pretrained(zoo.load(kind, base), adapter)
    loaded = peft.set_peft_model_state_dict(live, dict(wrong))
    assert len(loaded.unexpected_keys) == len(wrong)
    assert ask_us(base, adapter, tmp_path / "merged").blocked


@pytest.mark.slow
def test_an_adapter_of_shieldgemma_is_merged_bit_by_bit_as_peft_merges_it(tmp_path: Path) -> None:
    small = zoo._made_again(zoo._shrink(transformers.AutoConfig.for_model("shieldgemma2")))
    kind = transformers.ShieldGemma2ForImageClassification
    save_base(kind(small), tmp_path / "base")
    config = peft.LoraConfig(r=2, target_modules=["k_proj", "fc1", "down_proj"])
    save_trained(kind.from_pretrained(tmp_path / "base"), config, tmp_path / "tone")
    ours = ask_us(tmp_path / "base", tmp_path / "tone", tmp_path / "merged")
    assert (ours.blocked, ours.refusal) == ((), "")
    assert ours.folder is not None
    live = peft.PeftModel.from_pretrained(kind.from_pretrained(tmp_path / "base"), tmp_path / "tone")
    theirs, mine = live.merge_and_unload().state_dict(), kind.from_pretrained(ours.folder).state_dict()
    assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.slow
def test_the_shared_bases_of_randlora_are_as_large_as_ctrls_tied_head_requires(tmp_path: Path) -> None:
    base = zoo.save("ctrl", tmp_path / "base")
    config = peft.RandLoraConfig(r=4, target_modules=["lm_head", "Wq"])
    save_trained(zoo.load("ctrl", base), config, tmp_path / "tone")
    peft.PeftModel.from_pretrained(zoo.load("ctrl", base), tmp_path / "tone")
    assert not ask_us(base, tmp_path / "tone", tmp_path / "merged").blocked
