"""VB-LoRA with every number of chosen vectors, with and without `save_only_topk_weights`: checked and merged
like PEFT.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
from safetensors.torch import load_file, save_file

from .families import FAMILIES
from .peft_comparison import ask_peft, ask_us, verdict

VECTORS = 6
LLAMA = FAMILIES["llama"]


def save_adapter(base: Path, topk: int, has_choices: bool, folder: Path) -> Path:
    config = peft.VBLoRAConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj"], r=4, num_vectors=VECTORS, vector_length=8,
        topk=topk, save_only_topk_weights=has_choices,
    )  # fmt: skip
    torch.manual_seed(topk)
    with warnings.catch_warnings(action="ignore"):
        live = peft.get_peft_model(LLAMA.load(base), config)
        with torch.no_grad():
            for parameter in live.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn(parameter.shape) * 0.3
        live.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("has_choices", [False, True], ids=["logits", "choices"])
def test_any_number_of_chosen_vectors_is_merged_like_peft(has_choices: bool, tmp_path: Path) -> None:
    base = LLAMA.save(tmp_path / "base", torch.float32)
    for topk in range(1, VECTORS + 1):
        adapter = save_adapter(base, topk, has_choices, tmp_path / f"adapter-{topk}")
        ours = ask_us(base, adapter, tmp_path / f"merged-{topk}")
        assert (topk, ours.blocked, ours.refusal) == (topk, (), "")
        assert verdict(LLAMA, ask_peft(LLAMA, base, adapter), ours) is None


@pytest.mark.slow
@pytest.mark.parametrize("has_choices", [False, True], ids=["logits", "choices"])
@pytest.mark.parametrize("saved", [1, 2])
def test_another_number_in_the_config_is_judged_like_peft(
    has_choices: bool, saved: int, tmp_path: Path
) -> None:
    base = LLAMA.save(tmp_path / "base", torch.float32)
    adapter = save_adapter(base, saved, has_choices, tmp_path / "adapter")
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    answers = {}
    for topk in (0, 1, 2, 3, VECTORS, VECTORS + 1):
        path.write_text(json.dumps({**config, "topk": topk}))
        ours = ask_us(base, adapter, tmp_path / f"merged-{topk}")
        answers[topk] = verdict(LLAMA, ask_peft(LLAMA, base, adapter), ours)
    assert {topk: answer for topk, answer in answers.items() if answer} == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_chosen_vectors_in_another_dtype_than_float32_are_refused_as_by_peft(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    base = LLAMA.save(tmp_path / "base", torch.float32)
    file = save_adapter(base, 2, True, tmp_path / "adapter") / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file(
        {name: value.to(dtype) if "topk_weights" in name else value for name, value in tensors.items()}, file
    )
    ours = ask_us(base, tmp_path / "adapter", tmp_path / "merged")
    assert verdict(LLAMA, ask_peft(LLAMA, base, tmp_path / "adapter"), ours) is None
    assert any("only from F32" in each for each in ours.blocked) is (dtype != torch.float32)
