"""Adapters of bare models (`AutoModel`) and of models with a head, on bases that were saved as either."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
import transformers

from .families import FAMILIES, Family
from .peft_comparison import ByPeft, ByUs, ask_peft, ask_us, verdict

_LANGUAGE, _BARE = transformers.AutoModelForCausalLM, transformers.AutoModel
_SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
    "vocab_size": 96,
}  # fmt: skip


def _phimoe() -> Any:
    """Its router is a linear layer."""
    config = transformers.PhimoeConfig(
        **_SMALL, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, head_dim=8
    )
    return transformers.PhimoeForCausalLM(config)


def _fuyu() -> Any:
    text = transformers.PersimmonConfig(**_SMALL)
    config = transformers.FuyuConfig(**_SMALL, text_config=text.to_dict(), patch_size=4, num_channels=3)
    return transformers.FuyuForCausalLM(config)


def _llama4() -> Any:
    config = transformers.Llama4TextConfig(
        **_SMALL, num_key_value_heads=2, head_dim=8, intermediate_size_mlp=48, num_local_experts=4,
        num_experts_per_tok=1, interleave_moe_layer_step=1,
    )  # fmt: skip
    return transformers.Llama4ForCausalLM(config)


OTHERS = {"phimoe": _phimoe, "fuyu": _fuyu, "llama4": _llama4}
PLAIN = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
SAVED = peft.LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"], modules_to_save=["norm"])
ROWS = peft.TrainableTokensConfig(token_indices=[1, 5, 3])


def _base(name: str, folder: Path, is_bare: bool = False) -> tuple[Family, Path]:
    family = FAMILIES[name] if name in FAMILIES else Family(OTHERS[name], _LANGUAGE, None, [])
    if is_bare:
        family = replace(family, build=lambda: FAMILIES[name].build().base_model)
    return family, family.save(folder / "base", torch.float32)


def _adapter(
    family: Family, base: Path, config: peft.PeftConfig, folder: Path, states_class: bool = False
) -> Path:
    """An adapter that PEFT saved from the family's class; its config may state the class."""
    torch.manual_seed(1)
    with warnings.catch_warnings(action="ignore"):
        trained = peft.get_peft_model(family.load(base), config)
        with torch.no_grad():
            for parameter in trained.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn(parameter.shape) * 0.1
        trained.save_pretrained(folder / "adapter")
    if not states_class:
        file = folder / "adapter" / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "auto_mapping": None}))
    return folder / "adapter"


def _asked(family: Family, base: Path, adapter: Path, folder: Path) -> tuple[ByPeft, ByUs]:
    return ask_peft(family, base, adapter), ask_us(base, adapter, folder / "merged")


@pytest.mark.slow
@pytest.mark.parametrize("config", [PLAIN, SAVED, ROWS], ids=["lora", "saved modules", "token rows"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2_moe", "llava"])
def test_an_adapter_of_the_bare_model_fits_a_base_with_a_head(
    name: str, config: peft.PeftConfig, tmp_path: Path
) -> None:
    if name == "gpt2":
        config = (
            replace(config, modules_to_save=["ln_f"], target_modules="all-linear")
            if config is SAVED
            else config
        )
    family, base = _base(name, tmp_path)
    bare = replace(family, auto=_BARE, task=None)
    adapter = _adapter(bare, base, replace(config), tmp_path)

    theirs, ours = _asked(bare, base, adapter, tmp_path)

    assert theirs.takes_all and not ours.blocked and not ours.refusal
    assert verdict(bare, theirs, ours) is None
    assert any("model_class_chosen: its names are those of the bare model" in told for told in ours.told)
    assert not ask_peft(family, base, adapter).takes_all


@pytest.mark.slow
def test_an_adapter_of_a_model_with_a_head_fits_a_base_without_one(tmp_path: Path) -> None:
    family, base = _base("gpt2", tmp_path, is_bare=True)
    with_head = replace(FAMILIES["gpt2"], task=None)
    adapter = _adapter(with_head, base, replace(PLAIN), tmp_path)

    theirs, ours = _asked(with_head, base, adapter, tmp_path)

    assert theirs.takes_all and not ours.blocked and not ours.refusal
    assert verdict(with_head, theirs, ours) is None
    assert any("model_class_chosen: its names are those of a model with a head" in told for told in ours.told)
    assert not ask_peft(replace(family, auto=_BARE), base, adapter).takes_all


@pytest.mark.slow
@pytest.mark.parametrize("auto", [_LANGUAGE, _BARE], ids=["with a head", "bare"])
@pytest.mark.parametrize("name", sorted(OTHERS))
def test_names_and_classes_of_less_common_families_are_known(name: str, auto: Any, tmp_path: Path) -> None:
    family, base = _base(name, tmp_path)
    family = replace(family, auto=auto)
    adapter = _adapter(family, base, replace(PLAIN), tmp_path, states_class=True)

    theirs, ours = _asked(family, base, adapter, tmp_path)

    assert theirs.takes_all and not ours.blocked
    assert bool(ours.told) == (not _answers(family, base, adapter))
    assert verdict(family, theirs, ours) is None


def _answers(family: Family, base: Path, adapter: Path) -> bool:
    """Whether the model runs with the adapter: PEFT's layer assumes that a router returns a tensor."""
    model = peft.PeftModel.from_pretrained(family.load(base), adapter)
    try:
        model(torch.arange(8)[None])
    except AttributeError:
        return False
    return True


@pytest.mark.slow
def test_ensure_weight_tying_has_no_effect_on_a_base_that_is_not_tied(tmp_path: Path) -> None:
    family, base = _base("llama", tmp_path)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True,
        init_lora_weights=False,
    )  # fmt: skip
    adapter = _adapter(family, base, config, tmp_path, states_class=True)

    theirs, ours = _asked(family, base, adapter, tmp_path)

    assert theirs.takes_all and not ours.blocked and not ours.told
    assert verdict(family, theirs, ours) is None
