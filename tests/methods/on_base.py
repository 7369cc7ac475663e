"""Adapters of the methods that read the base's weight, made and saved by PEFT, and tiny bases for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402  (needs torch)

ATTENTION = ["q_proj", "v_proj"]  # v is narrower than q: grouped queries
LINEAR = [*ATTENTION, "down_proj"]
BLOCKS = ["conv", "embedding", "linear"]

CASES: dict[str, tuple[str, Callable[[], Any]]] = {
    "oft": ("llama", lambda: peft.OFTConfig(target_modules=LINEAR, oft_block_size=8)),
    "oft of six terms": (
        "llama", lambda: peft.OFTConfig(target_modules=LINEAR, oft_block_size=8, num_cayley_neumann_terms=6)),
    "oft of two terms": (
        "llama", lambda: peft.OFTConfig(target_modules=LINEAR, oft_block_size=8, num_cayley_neumann_terms=2)),
    "oft solved": (
        "llama", lambda: peft.OFTConfig(
            target_modules=LINEAR, r=4, oft_block_size=0, use_cayley_neumann=False)),
    "oft constrained": (
        "llama", lambda: peft.OFTConfig(target_modules=LINEAR, oft_block_size=8, coft=True, eps=0.5)),
    "oft shared": (
        "llama", lambda: peft.OFTConfig(target_modules=LINEAR, oft_block_size=8, block_share=True)),
    "oft with biases": (
        "llama", lambda: peft.OFTConfig(target_modules=LINEAR, oft_block_size=8, bias="oft_only")),
    "oft of blocks": ("blocks", lambda: peft.OFTConfig(target_modules=BLOCKS, oft_block_size=4)),
    "oft of blocks shared": (
        "blocks", lambda: peft.OFTConfig(target_modules=BLOCKS, oft_block_size=4, block_share=True)),
    "boft": ("llama", lambda: peft.BOFTConfig(target_modules=LINEAR, boft_block_size=8)),
    "boft of blocks": (
        "blocks", lambda: peft.BOFTConfig(target_modules=["conv", "linear"], boft_block_size=4)),
    "hra": ("llama", lambda: peft.HRAConfig(target_modules=LINEAR, r=5)),
    "hra orthogonal": ("llama", lambda: peft.HRAConfig(target_modules=LINEAR, r=4, apply_GS=True)),
    "hra of blocks": (
        "blocks", lambda: peft.HRAConfig(target_modules=["conv", "linear"], r=4, apply_GS=True)),
    "road_1": ("llama", lambda: peft.RoadConfig(target_modules=LINEAR, variant="road_1", group_size=8)),
    "road_2": ("llama", lambda: peft.RoadConfig(target_modules=LINEAR, variant="road_2", group_size=16)),
    "road_4": ("llama", lambda: peft.RoadConfig(target_modules=LINEAR, variant="road_4", group_size=8)),
    "ln_tuning": (
        "llama", lambda: peft.LNTuningConfig(target_modules=["input_layernorm", "norm"])),
    "ln_tuning with biases": ("gpt2", lambda: peft.LNTuningConfig(target_modules=["ln_1", "ln_f"])),
    "hira": ("llama", lambda: peft.HiraConfig(target_modules=LINEAR, r=4)),
    "hira of conv1d": (
        "gpt2", lambda: peft.HiraConfig(target_modules=["c_attn", "c_proj"], r=4, fan_in_fan_out=True)),
    "hira of blocks": (
        "blocks", lambda: peft.HiraConfig(target_modules=[*BLOCKS, "one", "line", "solid"], r=3)),
    "glora": ("llama", lambda: peft.GloraConfig(target_modules=LINEAR, r=4)),
    "glora of vectors": (
        "llama", lambda: peft.GloraConfig(
            target_modules=LINEAR, config_A_B="vector", config_C="vector", config_D_E="vector")),
    "glora of numbers": (
        "llama", lambda: peft.GloraConfig(
            target_modules=LINEAR, config_A_B="constant", config_C="none", config_D_E="none")),
    "glora of the bias": (
        "llama", lambda: peft.GloraConfig(target_modules=ATTENTION, config_A_B="none", config_C="lora")),
    "beft": ("llama", lambda: peft.BeftConfig(target_modules=ATTENTION)),
    "deft": ("llama", lambda: peft.DeftConfig(target_modules=LINEAR, r=4)),
    "deft by qr": (
        "llama", lambda: peft.DeftConfig(target_modules=LINEAR, r=4, alpha=7, decomposition_method="qr")),
    "deft taking out": ("llama", lambda: peft.DeftConfig(target_modules=LINEAR, r=4, para=True)),
    "deft of conv1d": (
        "gpt2", lambda: peft.DeftConfig(
            target_modules=["c_attn", "c_proj"], r=4, alpha=3, fan_in_fan_out=True)),
    "peanut": ("llama", lambda: peft.PeanutConfig(target_modules=LINEAR, r=4)),
    "peanut deep": (
        "llama", lambda: peft.PeanutConfig(target_modules=LINEAR, r=4, depth=2, act_fn="gelu", scaling=0.7)),
    "osf": ("llama", lambda: peft.OSFConfig(target_modules=LINEAR, effective_rank=12)),
    "osf by part": ("llama", lambda: peft.OSFConfig(target_modules=LINEAR, rank_pattern={"q_proj": 0.25})),
    "psoft": ("llama", lambda: peft.PsoftConfig(target_modules=LINEAR, r=6, psoft_alpha=9)),
    "psoft by series": (
        "llama", lambda: peft.PsoftConfig(
            target_modules=LINEAR, r=6, use_cayley_neumann=True, cayley_neumann_eps=0.9,
            ab_svd_init="pissa_init")),
    "psoft projected": (
        "llama", lambda: peft.PsoftConfig(
            target_modules=LINEAR, r=6, psoft_svd="lowrank", random_seed=3, psoft_orth=False,
            psoft_mag_a=False)),
    "frod": ("llama", lambda: peft.FrodConfig(target_modules=LINEAR, progressbar=False)),
    "frod of conv1d": (
        "gpt2", lambda: peft.FrodConfig(
            target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, progressbar=False)),
    "trainable_tokens": ("llama", lambda: peft.TrainableTokensConfig(token_indices=[3, 1, 90])),
    "trainable_tokens of tied ends": ("tied", lambda: peft.TrainableTokensConfig(token_indices=[3, 1, 90])),
    "ia3": ("llama", lambda: peft.IA3Config(target_modules=LINEAR, feedforward_modules=["down_proj"])),
    "ia3 of conv1d": (
        "gpt2", lambda: peft.IA3Config(
            target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"],
            fan_in_fan_out=True)),
    "ia3 of blocks": (
        "blocks", lambda: peft.IA3Config(
            target_modules=["conv", "solid", "linear"], feedforward_modules=["solid"])),
}  # fmt: skip


class Blocks(torch.nn.Module):
    """A model that has only kinds of layers that are rare in transformers' models."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(20, 8)
        self.line = torch.nn.Conv1d(8, 8, 3)
        self.conv = torch.nn.Conv2d(8, 12, 3)
        self.one = torch.nn.Conv2d(12, 8, 1)
        self.solid = torch.nn.Conv3d(8, 4, 3)
        self.linear = torch.nn.Linear(8, 16)


def _model(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "blocks":
        return Blocks()
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=96, n_positions=32)
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=96, attention_bias=True, mlp_bias=True,
        tie_word_embeddings=kind == "tied",
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


class Pair:
    """A base and an adapter of it on disk, and the results of using them."""

    def __init__(self, folder: Path, kind: str, config: Any, dtype: Any = torch.float32) -> None:
        self.base, self.adapter, self._folder, self._kind = folder / "base", folder / "adapter", folder, kind
        model = _model(kind).to(dtype)
        if kind == "blocks":
            self.base.mkdir()
            save_file(model.state_dict(), self.base / "model.safetensors")
            (self.base / "config.json").write_text(json.dumps({"model_type": "blocks"}))
        else:
            config.task_type = "CAUSAL_LM"
            model.save_pretrained(self.base)
        adapted = peft.get_peft_model(model, config)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3)
        adapted.save_pretrained(self.adapter)
        if kind == "blocks":  # PEFT writes the class's module here; it must not be imported
            self.configure(auto_mapping=None)

    def merged(self) -> dict[str, Any]:
        shutil.rmtree(self._folder / "merged", ignore_errors=True)
        source = MergeSource(WeightedAdapter(open_dir(self.adapter), 1.0, "adapter"))
        recipe = MergeRecipe(base="base", inputs=(RecipeInput(source="adapter"),))
        merge(recipe, open_checkpoint(self.base), [source], self._folder / "merged")
        return load_file(self._folder / "merged" / "model.safetensors")

    def merged_by_peft(self) -> dict[str, Any]:
        if self._kind == "blocks":
            model = Blocks()
            weights = load_file(self.base / "model.safetensors")
            model.to(weights["linear.weight"].dtype).load_state_dict(weights)
        else:
            model = transformers.AutoModelForCausalLM.from_pretrained(self.base, dtype="auto")
        return dict(peft.PeftModel.from_pretrained(model, self.adapter).merge_and_unload().state_dict())

    def base_weights(self) -> dict[str, Any]:
        return load_file(self.base / "model.safetensors")

    def findings(self) -> list[str]:
        record = fingerprint(open_checkpoint(self.base))
        return [found.code for found in check(open_dir(self.adapter), record).findings]

    def configure(self, **fields: Any) -> None:
        """Changes fields of the adapter's config in place."""
        path = self.adapter / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    def rewrite(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Changes the adapter's tensors in place."""
        path = self.adapter / "adapter_model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def pair_of(folder: Path, name: str, dtype: Any = torch.float32) -> Pair:
    kind, config = CASES[name]
    return Pair(folder, kind, config(), dtype)
