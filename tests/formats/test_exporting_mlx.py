"""Adapters exported to mlx-lm and imported again: mlx-lm's output equals PEFT's on the same model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.exporting.export import export
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import Unsupported

from .other_environment import OtherEnvironment

LIBRARY = OtherEnvironment("mlx", "mlx_library.py")
CASES: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["q_proj", "v_proj", "down_proj"]},
    "one layer only": {"target_modules": ["o_proj", "up_proj"], "layers_to_transform": [1]},
    "holes": {"target_modules": ["layers.0.self_attn.q_proj", "layers.1.mlp.up_proj"]},
    "scales": {"target_modules": ["q_proj", "k_proj"], "use_rslora": True, "alpha_pattern": {"k_proj": 3}},
    "ranks": {"target_modules": ["q_proj", "k_proj"], "rank_pattern": {"k_proj": 2}},
}

pytestmark = LIBRARY.marks


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlx")
    LIBRARY.run("make", folder)
    return folder


@pytest.fixture(scope="module")
def model(corpus: Path) -> LlamaForCausalLM:
    fields = json.loads((corpus / "llama" / "config.json").read_text())
    found = LlamaForCausalLM(LlamaConfig(**fields, tie_word_embeddings=True)).eval()  # mlx-lm's default
    found.load_state_dict(load_file(corpus / "llama" / "model.safetensors"), strict=False)
    return found


def setting(corpus: Path, model: str = "llama") -> ExportOptions:
    return ExportOptions(fingerprint(open_checkpoint(corpus / model)), base_name=f"org/{model}")


def by_peft(model: LlamaForCausalLM, adapter: Path) -> torch.Tensor:
    with torch.no_grad():
        tuned = PeftModel.from_pretrained(copy.deepcopy(model), str(adapter)).eval()
        return tuned(torch.arange(1, 9)[None]).logits


def by_mlx(*adapters: Path) -> list[torch.Tensor]:
    return [torch.tensor(answer["logits"]) for answer in LIBRARY.run("answers", "llama", *adapters)]


def test_mlx_answers_with_an_exported_adapter_as_peft_with_the_original(
    corpus: Path, model: LlamaForCausalLM, tmp_path: Path
) -> None:
    expected, made = [], []
    for case, config in CASES.items():
        torch.manual_seed(1)
        tuned = get_peft_model(copy.deepcopy(model), LoraConfig(r=4, lora_alpha=8, **config))
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, 0, 0.2)
        tuned.save_pretrained(str(tmp_path / case))
        expected.append(by_peft(model, tmp_path / case))
        made.append(tmp_path / f"{case} for mlx")
        export(ParentAdapter(open_dir(tmp_path / case), case), made[-1], setting(corpus), format="mlx")
    for case, wanted, answer in zip(CASES, expected, by_mlx(*made), strict=True):
        assert torch.allclose(answer, wanted, atol=1e-3), (case, (answer - wanted).abs().max())


def test_peft_answers_with_an_adapter_of_mlx_as_mlx_does(
    corpus: Path, model: LlamaForCausalLM, tmp_path: Path
) -> None:
    ways = ("lora", "last")
    for way, answer in zip(ways, by_mlx(*(corpus / f"llama-{way}" for way in ways)), strict=True):
        export(
            ParentAdapter(open_dir(corpus / f"llama-{way}"), way),
            tmp_path / way,
            setting(corpus),
            format="peft",
        )
        assert torch.allclose(by_peft(model, tmp_path / way), answer, atol=1e-3)


def test_adapters_that_pefts_layout_would_change_are_refused(corpus: Path, tmp_path: Path) -> None:
    for case, match in (
        ("llama-embedded", "also the output head"),
        ("mixtral-lora", "the experts of a layer"),
    ):
        options = setting(corpus, case.partition("-")[0])
        with pytest.raises(Unsupported, match=match):
            export(ParentAdapter(open_dir(corpus / case), case), tmp_path / case, options, format="peft")


def test_adapters_of_single_experts_are_refused_as_mlx_refuses_them(tmp_path: Path) -> None:
    base = tmp_path / "base"
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 1}
    config = MixtralConfig(**sizes, vocab_size=64, num_key_value_heads=2, num_local_experts=2)
    MixtralForCausalLM(config).save_pretrained(base)
    key = "base_model.model.model.layers.0.block_sparse_moe.experts"
    tensors = {}
    for expert in range(2):
        for name, (inputs, outputs) in {"w1": (32, 48), "w2": (48, 32), "w3": (32, 48)}.items():
            tensors[f"{key}.{expert}.{name}.lora_A.weight"] = torch.ones(4, inputs)
            tensors[f"{key}.{expert}.{name}.lora_B.weight"] = torch.ones(outputs, 4)
    LoraConfig(r=4, lora_alpha=8, target_modules=["w1", "w2", "w3"]).save_pretrained(str(tmp_path / "lora"))
    save_file(tensors, tmp_path / "lora" / "adapter_model.safetensors")
    options = ExportOptions(fingerprint(open_checkpoint(base)))

    with pytest.raises(Unsupported, match="mlx-lm has the experts of a layer in one module"):
        export(ParentAdapter(open_dir(tmp_path / "lora"), "it"), tmp_path / "out", options, format="mlx")
