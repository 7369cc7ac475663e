"""For unusual values of config fields, findings about the adapter match PEFT's behaviour."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
from peft.tuners.lora import config as lora_config
from safetensors.torch import load_file

from adaptry import open_dir
from adaptry.adapters.config import AdapterConfig
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.checks.refused_configs import refused_fields

from .corpus import cases, make
from .families import FAMILIES
from .odd_values import odd_values, wrong_values
from .peft_comparison import write
from .variants import VARIANTS

pytestmark = pytest.mark.heavy

MAPPINGS = {
    "arrow_config": lora_config.ArrowConfig,
    "corda_config": lora_config.CordaConfig,
    "eva_config": lora_config.EvaConfig,
    "kasa_config": lora_config.KasaConfig,
    "lora_ga_config": lora_config.LoraGAConfig,
    "monteclora_config": lora_config.MontecloraConfig,
    "velora_config": lora_config.VeloraConfig,
}
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
def test_a_value_that_peft_ignores_or_completes_gives_no_finding(
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


@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT's, about a mapping that init_lora_weights ignores
@pytest.mark.parametrize("key", sorted(MAPPINGS))
def test_a_value_inside_a_mapping_that_peft_refuses_is_a_finding(key: str, tmp_path: Path) -> None:
    plain = dataclasses.asdict(MAPPINGS[key]())
    values = [{**plain, field: odd} for field in plain for odd in odd_values(plain[field])]
    values += [plain, {**plain, "foo": 1}]
    for value in values:
        fields = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], key: value}
        (tmp_path / "adapter_config.json").write_text(json.dumps(fields))
        try:
            peft.LoraConfig.from_pretrained(tmp_path)
            is_refused = False
        except (ValueError, TypeError, RecursionError):  # the last by an unknown key of MonteCLoRA
            is_refused = True
        found = list(refused_fields(AdapterConfig(fields)))
        assert bool(found) is is_refused, (value, found)


def test_a_module_in_both_lists_of_a_bdlora_is_refused_as_by_peft() -> None:
    both = {"target_modules_bd_a": ["q_proj"], "target_modules_bd_b": ["q_proj"]}
    with pytest.raises(ValueError, match="overlapping modules"):
        peft.LoraConfig(target_modules=["q_proj"], use_bdlora=lora_config.BdLoraConfig(**both))
    fields = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "use_bdlora": both}
    (found,) = refused_fields(AdapterConfig(fields))
    assert found.reason.startswith("use_bdlora has 'q_proj' in both lists")


@pytest.mark.heavy
@pytest.mark.parametrize("method", sorted(VARIANTS.keys() - {"bone", *_IN_CI}))
def test_an_odd_value_of_any_method_is_judged_as_by_peft(method: str, tmp_path: Path) -> None:
    assert list(wrong_values(method, tmp_path)) == []
