"""Whatever value a field of a method's config has, what we say of the adapter is what PEFT does with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
from safetensors.torch import load_file

from adaptry import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check

from .corpus import cases, make
from .families import FAMILIES
from .judging import write
from .odd_values import wrong_values
from .variants import VARIANTS

_IN_CI = ("osf", "peanut", "tinylora")


@pytest.mark.slow
@pytest.mark.parametrize("method", _IN_CI)
def test_an_odd_value_is_judged_as_by_peft(method: str, tmp_path: Path) -> None:
    assert list(wrong_values(method, tmp_path)) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")  # PEFT's prefix tuning
@pytest.mark.parametrize(
    ("method", "field", "value"),
    [
        ("lora", "qalora_group_size", 16.0),
        ("lora", "qalora_group_size", None),
        ("prompt_tuning", "token_dim", None),
        ("prefix_tuning", "encoder_hidden_size", None),
        ("p_tuning", "token_dim", None),
    ],
)
def test_a_value_that_peft_ignores_or_completes_is_no_finding(
    method: str, field: str, value: object, tmp_path: Path
) -> None:
    case = next(one for one in cases([method], dtypes=["fp32"]) if one.family == "llama")
    made = make(case, tmp_path)
    config = json.loads((made.adapter / "adapter_config.json").read_text())
    tensors = load_file(made.adapter / "adapter_model.safetensors")
    odd = write(tmp_path / "odd", tensors, {**config, field: value})

    tokens = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        loaded = [
            peft.PeftModel.from_pretrained(FAMILIES["llama"].load(made.base), adapter).eval()(tokens).logits
            for adapter in (made.adapter, odd)
        ]
    assert torch.equal(*loaded)
    found = check(open_dir(odd), fingerprint(open_checkpoint(made.base))).findings
    assert not [one for one in found if one.severity == "blocks"]


@pytest.mark.heavy
@pytest.mark.parametrize("method", sorted(VARIANTS.keys() - {"bone", *_IN_CI}))
def test_an_odd_value_of_any_method_is_judged_as_by_peft(method: str, tmp_path: Path) -> None:
    assert list(wrong_values(method, tmp_path)) == []
