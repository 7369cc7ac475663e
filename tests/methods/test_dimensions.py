"""Tensors with more or fewer dimensions than PEFT writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from safetensors.torch import load_file

from .corpus import cases, make
from .families import FAMILIES
from .peft_comparison import ask_peft, ask_us, write


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "part"),
    [
        *(("adalora-plain", "lora_E"), ("delora-plain", "delora_lambda"), ("delora-plain", "delora_w_norm")),
        *(("lokr-plain", "lokr_w1"), ("lokr-plain", "lokr_w2_a"), ("lokr-both-factored", "lokr_w2_b")),
        *(("vera-plain", "vera_lambda_b"), ("pvera-plain", "pvera_lambda_b"), ("psoft-plain", "psoft_R")),
        *(("vblora-top-k-only", "A_topk_weights"), ("gralora-hybrid", "B_general"), ("hira-plain", "hira_B")),
        *(("adamss-plain", "adamss_B.0"), ("frod-plain", "frod_s_indices"), ("glora-plain", "glora_A.Xd")),
        *(("tinylora-plain", "tinylora_v"), ("shira-plain", "shira_weight")),
        ("adaption_prompt-plain", "adaption_gate"),
    ],
)
def test_a_tensor_with_one_dimension_more_is_blocked(variant: str, part: str, tmp_path: Path) -> None:
    name = f"{variant}-llama-fp32"
    made = make(next(case for case in cases(dtypes=["fp32"]) if str(case) == name), tmp_path / "corpus")
    tensors = load_file(made.adapter / "adapter_model.safetensors")
    chosen = next(key for key in tensors if part in key)
    tensors[chosen] = tensors[chosen].unsqueeze(-1)
    config = json.loads((made.adapter / "adapter_config.json").read_text())
    adapter = write(tmp_path / "adapter", tensors, config)

    theirs = ask_peft(FAMILIES["llama"], made.base, adapter)

    assert theirs.error
    assert ask_us(made.base, adapter, tmp_path / "merged").blocked
