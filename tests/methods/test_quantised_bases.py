"""Adapters of every method on bases that bitsandbytes quantised: what PEFT raises, and what we report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")

import peft
import torch
import transformers

from .peft_comparison import ask_us
from .variants import VARIANTS

pytestmark = pytest.mark.heavy

KINDS: dict[str, dict[str, Any]] = {  # (`Any`: transformers' fields.)
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "int8": {"load_in_8bit": True},
}
METHODS = (
    *("adamss", "boft", "c3a", "deft", "delora", "fourierft", "frod", "glora", "gralora", "hira", "hra"),
    *("loha", "lokr", "miss", "oft", "osf", "peanut", "psoft", "supertuning", "tinylora", "unilora"),
    *("vblora", "vera", "waveft"),
    *("adalora", "ia3", "pvera", "randlora", "road", "shira"),
)
STARTS = ("eva", "gaussian", "lora_ga", "mica", "olora", "orthogonal", "pissa", "pissa_niter_4")
IDS = torch.tensor([[5, 9, 17, 30, 41, 8, 7, 11]])


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=96,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, attention_bias=True,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "original")
    for kind, fields in KINDS.items():
        transformers.AutoModelForCausalLM.from_pretrained(
            folder / "original", quantization_config=transformers.BitsAndBytesConfig(**fields),
            dtype=torch.bfloat16, device_map="cpu",
        ).save_pretrained(folder / kind)  # fmt: skip
    return folder


def load(base: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto", device_map="cpu").eval()


def outputs(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


def is_used_by_peft(base: Path, adapter: Path) -> bool:
    before = outputs(load(base))
    try:
        after = outputs(peft.PeftModel.from_pretrained(load(base), adapter).eval())
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    return not torch.equal(before, after)


def trained(bases: Path, config: peft.PeftConfig, folder: Path) -> Path:
    torch.manual_seed(1)
    model = peft.get_peft_model(load(bases / "original"), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape) * 0.1
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_methods_that_peft_cannot_use_on_quantised_weights_are_reported(
    method: str, kind: str, bases: Path, tmp_path: Path
) -> None:
    make = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(method.upper())]
    config = make(task_type="CAUSAL_LM", target_modules=["q_proj"], **VARIANTS[method][0].fields)
    adapter = trained(bases, config, tmp_path / "tone")

    told = ask_us(bases / kind, adapter, tmp_path / "merged").told

    assert is_used_by_peft(bases / kind, adapter) is not any("quantised_refused" in each for each in told)
    plain = ask_us(bases / "original", adapter, tmp_path / "plain")
    assert not plain.blocked and not any("quantised_refused" in each for each in plain.told)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", STARTS)
def test_initialisations_that_peft_cannot_compute_of_quantised_weights_are_reported(
    start: str, kind: str, bases: Path, tmp_path: Path
) -> None:
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], r=4, init_lora_weights=start)
    adapter = trained(bases, config, tmp_path / "tone")

    told = ask_us(bases / kind, adapter, tmp_path / "merged").told

    assert is_used_by_peft(bases / kind, adapter) is not any("quantised_refused" in each for each in told)
