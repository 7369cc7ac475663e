"""Small bases with every kind of layer, LoRAs that PEFT saved for them, and merges by PEFT and by us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.record import MergeRecord
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput

IDS = torch.tensor([[1, 5, 3, 7, 9]])
SMALL = {
    "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 64,
}  # fmt: skip


class Layers(torch.nn.Module):
    """One of each layer that PEFT puts a LoRA on, one level down as in any real model."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.ModuleDict(
            {
                "line": torch.nn.Conv1d(4, 8, 3, padding=1),
                "plane": torch.nn.Conv2d(4, 8, (3, 2)),
                "point": torch.nn.Conv2d(8, 6, 1),
                "space": torch.nn.Conv3d(2, 4, 3),
                "grouped": torch.nn.Conv2d(8, 8, 3, groups=4),
                "heads": torch.nn.MultiheadAttention(16, 2, batch_first=True),
                "words": torch.nn.Embedding(10, 16),
                "linear": torch.nn.Linear(16, 5),
            }
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Never run: only the layers are merged."""
        return inputs


def small_model(kind: str) -> Any:
    """A seeded fp32 model of a kind. (`Any`: transformers' classes are untyped here.)"""
    torch.manual_seed(0)
    match kind:
        case "layers":
            return Layers()
        case "gpt2":
            config = transformers.GPT2Config(
                n_embd=32, n_layer=2, n_head=2, vocab_size=96, n_positions=64, bos_token_id=0, eos_token_id=0
            )
            return transformers.GPT2LMHeadModel(config)
        case "t5":
            config = transformers.T5Config(
                d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, vocab_size=96
            )
            return transformers.T5ForConditionalGeneration(config)
        case "mixtral":
            sizes = SMALL | {"intermediate_size": 24, "num_local_experts": 4}
            return transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes))
        case "qwen2_moe":
            sizes = SMALL | {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
            return transformers.Qwen2MoeForCausalLM(transformers.Qwen2MoeConfig(**sizes))
        case "nemotron_h":  # equal inner and outer widths: shapes do not distinguish its two parameters
            config = transformers.NemotronHConfig(
                hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=8, vocab_size=96,
                layers_block_type=["attention", "moe"], moe_intermediate_size=32, n_routed_experts=4,
                moe_shared_expert_intermediate_size=24, num_experts_per_tok=2, mamba_num_heads=4,
                mamba_head_dim=16,
            )  # fmt: skip
            return transformers.NemotronHForCausalLM(config)
        case "gpt_oss":  # square down_proj, stored [experts, in, out]
            sizes = SMALL | {"intermediate_size": 32, "num_local_experts": 4, "head_dim": 8}
            return transformers.GptOssForCausalLM(transformers.GptOssConfig(**sizes))
        case _:
            config = transformers.LlamaConfig(
                **SMALL, attention_bias=True, tie_word_embeddings=kind == "tied"
            )
            return transformers.LlamaForCausalLM(config)


def save_base(folder: Path, kind: str, dtype: torch.dtype = torch.float32) -> Path:
    model = small_model(kind).to(dtype)
    if kind != "layers":
        model.save_pretrained(folder)
        return folder
    folder.mkdir()
    save_file(
        {name: tensor.clone() for name, tensor in model.state_dict().items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "layers", "architectures": ["Layers"]}))
    return folder


def load(folder: Path) -> Any:
    """The model in a folder. (`Any`: as above.)"""
    if json.loads((folder / "config.json").read_text())["model_type"] != "layers":
        kind = transformers.AutoModelForCausalLM
        if json.loads((folder / "config.json").read_text())["model_type"] == "t5":
            kind = transformers.AutoModelForSeq2SeqLM
        return kind.from_pretrained(folder, dtype="auto").eval()
    tensors = load_file(folder / "model.safetensors")
    model = Layers().to(next(iter(tensors.values())).dtype)
    model.load_state_dict(tensors)
    return model


def save_adapter(base: Path, folder: Path, tokens: int | None = None, **fields: Any) -> Path:
    """Saves a LoRA with these config fields on `base` (with `tokens` in its vocabulary), each of whose
    tensors has random changes.
    """
    model = load(base)
    if tokens is not None:
        model.resize_token_embeddings(tokens)
    adapted = peft.get_peft_model(model, peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **fields}))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if any(part in name for part in ("lora_", "modules_to_save", "trainable_tokens")):
                parameter += torch.randn_like(parameter) * 0.1
    adapted.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    if config["auto_mapping"] and "Layers" in config["auto_mapping"].values():
        config["auto_mapping"] = None  # it names this file as a module to import
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def adapted(base: Path, adapter: Path, tokens: int | None = None) -> Any:
    """The live adapter. (`Any`: as above.)"""
    model = load(base)
    if tokens is not None:
        model.resize_token_embeddings(tokens)
    return peft.PeftModel.from_pretrained(model, adapter).eval()


def merged_by_peft(base: Path, adapter: Path, tokens: int | None = None) -> dict[str, torch.Tensor]:
    return dict(adapted(base, adapter, tokens).merge_and_unload().state_dict())


def merged(base: Path, adapter: Path, weight: float = 1.0, **recipe: Any) -> tuple[Path, MergeRecord]:
    """Our merge, in a folder next to the base."""
    target = base.parent / "merged"
    record = merge(
        MergeRecipe(base=str(base), inputs=(RecipeInput(source=str(adapter), weight=weight),), **recipe),
        open_checkpoint(base),
        [MergeSource(WeightedAdapter(open_dir(adapter), weight, "tone"))],
        target,
    )
    return target, record


def differing(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> list[str]:
    """The names that one of them lacks, or whose values differ in any bit; only one may have a tied head."""
    names = (
        (found.keys() | wanted.keys()) - {"lm_head.weight"} if "lm_head.weight" not in found else found.keys()
    )
    return [name for name in sorted(names) if not torch.equal(found[name], wanted[name])]
