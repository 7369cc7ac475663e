"""Task heads (`classifier`, `score`, `qa_outputs`), which PEFT always saves as a whole."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
import transformers
from safetensors.torch import load_file

from .corpus import Made, cases, make
from .families import FAMILIES, Family
from .mutations import PREFIX
from .peft_comparison import ByUs, State, ask_peft, ask_us, verdict, write

HEAD = f"{PREFIX}classifier"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A LoRA with biases of a classifier, whose file also has PEFT's own copies of the head's bias."""
    (case,) = (one for one in cases(dtypes=["fp32"]) if str(one) == "lora-bias-bert-fp32")
    return make(case, tmp_path_factory.mktemp("corpus"))


def judged(made: Made, tensors: State, config: dict[str, Any], folder: Path) -> ByUs:
    """Our answer, which PEFT has confirmed. (`Any`: JSON.)"""
    fields = json.loads((made.adapter / "adapter_config.json").read_text())
    adapter = write(folder / "adapter", tensors, {**fields, **config})
    ours = ask_us(made.base, adapter, folder / "merged")
    family = FAMILIES[made.case.family]
    assert verdict(family, ask_peft(family, made.base, adapter), ours) is None
    return ours


def tensors_of(made: Made) -> State:
    return load_file(made.adapter / "adapter_model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["SEQ_CLS", "TOKEN_CLS"])
@pytest.mark.parametrize("listed", [None, [], ["lm_head"]])
def test_a_head_that_the_config_does_not_list_is_merged_without_a_finding(
    task: str, listed: list[str] | None, made: Made, tmp_path: Path
) -> None:
    ours = judged(made, tensors_of(made), {"modules_to_save": listed, "task_type": task}, tmp_path)
    assert not ours.blocked and not ours.told


@pytest.mark.slow
def test_a_head_that_neither_file_nor_config_has_is_refused_as_by_peft(made: Made, tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in tensors_of(made).items() if HEAD not in name}
    ours = judged(made, tensors, {"modules_to_save": None}, tmp_path)
    assert ours.blocked == (
        "peft_refuses: for its task_type, PEFT saves classifier, score whole, but the file lacks"
        " classifier.bias, classifier.weight",
    )


@pytest.mark.slow
def test_a_lora_of_a_head_that_peft_saves_whole_is_refused(made: Made, tmp_path: Path) -> None:
    tensors = tensors_of(made)
    tensors[f"{HEAD}.lora_A.weight"] = torch.randn(4, tensors[f"{HEAD}.weight"].shape[1])
    tensors[f"{HEAD}.lora_B.weight"] = torch.randn(tensors[f"{HEAD}.weight"].shape[0], 4)
    targets = ["value", "intermediate.dense", "query", "classifier"]
    ours = judged(made, tensors, {"modules_to_save": None, "target_modules": targets}, tmp_path)
    assert ours.blocked


@pytest.mark.slow
@pytest.mark.parametrize("bias", ["none", "lora_only", "all"])
def test_a_head_of_several_modules_is_merged_with_the_biases_that_peft_saves(
    bias: str, tmp_path: Path
) -> None:
    """With `all`, PEFT also writes the biases of RoBERTa's head under their names inside its wrapper."""
    config = transformers.RobertaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, vocab_size=96,
        max_position_embeddings=64, num_labels=3,
    )  # fmt: skip
    kind = transformers.RobertaForSequenceClassification
    family = Family(lambda: kind(config), kind, "SEQ_CLS", [])
    base = family.save(tmp_path / "base", torch.float32)
    torch.manual_seed(1)
    with warnings.catch_warnings(action="ignore"):
        trained = peft.get_peft_model(
            family.load(base),
            peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query"], bias=bias),
        )
        with torch.no_grad():
            for parameter in trained.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn(parameter.shape) * 0.1
        trained.save_pretrained(tmp_path / "adapter")

    ours = ask_us(base, tmp_path / "adapter", tmp_path / "merged")

    assert not ours.blocked and not ours.refusal
    assert verdict(family, ask_peft(family, base, tmp_path / "adapter"), ours) is None
