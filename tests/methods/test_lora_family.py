"""Every LoRA variant that PEFT writes: described, and merged bit-equal to PEFT or refused with a remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

import torch
from peft import PeftModel
from peft.tuners.lora.config import BdLoraConfig, KasaConfig, MontecloraConfig, VeloraConfig
from safetensors.torch import load_file, save_file

from adaptry import open_dir
from adaptry.adapters.methods import METHODS
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.core.errors import AdaptryError, CheckFailed, InvalidConfig, Unsupported

from .lora_merging import differing, load, merged, merged_by_peft, save_adapter, save_base

MATRICES = ["q_proj", "v_proj", "down_proj"]
CONV1D = ["c_attn", "c_proj"]
CONVOLUTIONS = ["line", "plane", "point", "space"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
Case = tuple[str, dict[str, Any], set[str]]
CASES: dict[str, Case] = {
    "rsLoRA, orthogonal": ("llama", {"use_rslora": True, "init_lora_weights": "orthogonal"}, {"rslora"}),
    "DoRA": ("llama", {"use_dora": True}, {"dora"}),
    "DoRA of Conv1D": ("gpt2", {"target_modules": CONV1D, "use_dora": True}, {"dora"}),
    "DoRA of an embedding": ("gpt2", {"target_modules": ["wpe"], "use_dora": True}, {"dora", "embedding"}),
    "DoRA of convolutions": ("layers", {"target_modules": CONVOLUTIONS, "use_dora": True}, {"dora", "conv"}),
    "convolutions": ("layers", {"target_modules": CONVOLUTIONS}, {"conv"}),
    "convolutions with biases": (
        "layers", {"target_modules": ["line", "plane"], "lora_bias": True}, {"conv", "lora_bias"}),
    "attention in one module": ("layers", {"target_modules": ["heads"]}, {"attention"}),
    "attention with the base's biases": (
        "layers", {"target_modules": ["heads"], "bias": "all"}, {"attention", "bias"}),
    "attention with its own rank and alpha": (
        "layers",
        {
            "target_modules": ["heads", "linear"],
            "rank_pattern": {"heads": 2, "out_proj": 3}, "alpha_pattern": {"heads": 5, "out_proj": 7},
        },
        {"attention"},
    ),
    "an embedding and a linear": ("layers", {"target_modules": ["words", "linear"]}, {"embedding"}),
    "saved embeddings under a LoRA": (
        "llama", {"target_modules": ["embed_tokens", "lm_head"]}, {"embedding", "saved_embedding"}),
    "biases": ("llama", {"target_modules": ["q_proj", "v_proj"], "lora_bias": True}, {"lora_bias"}),
    "biases of Conv1D": ("gpt2", {"target_modules": ["c_attn"], "lora_bias": True}, {"lora_bias"}),
    "biases on trained biases": (
        "llama", {"target_modules": ["q_proj"], "bias": "all", "lora_bias": True}, {"bias", "lora_bias"}),
    "whole modules": ("llama", {"modules_to_save": ["embed_tokens", "lm_head"]}, {"modules_to_save"}),
    "token rows": ("llama", {"trainable_token_indices": [1, 5, 3]}, {"trainable_tokens"}),
    "PiSSA": ("llama", {"init_lora_weights": "pissa"}, {"pissa"}),
    "PiSSA of Conv1D": ("gpt2", {"target_modules": CONV1D, "init_lora_weights": "pissa"}, {"pissa"}),
    "PiSSA with DoRA": ("llama", {"init_lora_weights": "pissa", "use_dora": True}, {"pissa", "dora"}),
    "PiSSA of an embedding too": (
        "layers",
        {"target_modules": ["words", "linear"], "init_lora_weights": "pissa"},
        {"pissa", "embedding"},
    ),
    "OLoRA of an embedding too": (
        "layers",
        {"target_modules": ["words", "linear"], "init_lora_weights": "olora"},
        {"olora", "embedding"},
    ),
    "OLoRA": ("llama", {"init_lora_weights": "olora"}, {"olora"}),
    "KaSA": ("llama", {"kasa_config": KasaConfig()}, {"kasa"}),
    "MiCA": ("llama", {"init_lora_weights": "mica"}, set()),
    "MiCA of an embedding": (
        "layers", {"target_modules": ["words"], "init_lora_weights": "mica"}, {"embedding"}),
    "BD-LoRA": (
        "llama",
        {"use_bdlora": BdLoraConfig(
            nblocks=2, target_modules_bd_a=["down"], target_modules_bd_b=["q_", "v_"])},
        {"bdlora"},
    ),
    "VeLoRA": ("llama", {"velora_config": VeloraConfig()}, {"velora"}),
    "MonteCLoRA": ("llama", {"monteclora_config": MontecloraConfig()}, {"monteclora"}),
    "fused experts stored [in, out]": (
        "gpt_oss",
        {
            "target_modules": ["q_proj"], "target_parameters": EXPERTS,
            "rank_pattern": {"experts.down_proj": 2}, "alpha_pattern": {"experts.gate_up_proj": 3},
        },
        {"parameter", "target_parameters"},
    ),
    "fused experts on a base of single ones": (
        "qwen2_moe", {"target_modules": ["q_proj"], "target_parameters": EXPERTS}, {"parameter"}),
    "a router and fused experts of other names on disk": (
        "mixtral",
        {"target_modules": ["q_proj"], "target_parameters": ["mlp.gate.weight", *EXPERTS]},
        {"parameter"},
    ),
    "fused experts without a gate": (
        "nemotron_h",
        {"target_modules": ["q_proj"], "target_parameters": ["experts.up_proj", "experts.down_proj"]},
        {"parameter"},
    ),
    "a parameter of a module": (
        "layers", {"target_modules": ["words"], "target_parameters": ["linear.weight"]}, {"parameter"}),
}  # fmt: skip


@pytest.mark.filterwarnings(
    "ignore:The following (rank|alpha)_pattern keys:RuntimeWarning"
)  # parameters match
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_a_variant_is_described_whole_and_merged_as_peft_merges_it(
    case: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    kind, fields, traits = CASES[case]
    base = save_base(tmp_path / "base", kind, dtype)
    adapter = save_adapter(base, tmp_path / "tone", **{"target_modules": MATRICES, **fields})

    target, record = merged(base, adapter)

    spec = open_dir(adapter).spec
    assert traits <= set(spec.traits) and spec.unclaimed == () and spec.modules
    assert not differing(dict(load(target).state_dict()), merged_by_peft(base, adapter))
    assert record.baked


def test_a_block_diagonal_factor_is_as_wide_as_its_blocks_together(tmp_path: Path) -> None:
    blocks = BdLoraConfig(nblocks=2, target_modules_bd_a=["down"], target_modules_bd_b=["q_"])
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=["q_proj", "down_proj"], use_bdlora=blocks)

    widths = {module.path.rpartition(".")[2]: module for module in open_dir(adapter).spec.modules}

    assert [(module.rank, module.fan_in, module.fan_out) for module in widths.values()] == [
        (4, 80, 32),
        (4, 32, 32),
    ]


def test_the_double_update_of_an_attention_is_reported(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "layers")

    _, record = merged(base, save_adapter(base, tmp_path / "tone", target_modules=["heads"]))

    assert record.notes == (
        (
            "tone changes a MultiheadAttention: PEFT applies the update of its out_proj twice, in training"
            " and in its merge, and so does this merge"
        ),
    )


REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "a convolution in groups": (
        "layers", {"target_modules": ["grouped"]}, {}, "a grouped convolution, for which PEFT"),
    "biases of an attention": (
        "layers", {"target_modules": ["heads"], "lora_bias": True}, {}, "train with lora_bias=False"),
    "a transposed attention": (
        "layers", {"target_modules": ["heads"]}, {"fan_in_fan_out": True}, "PEFT transposes the update of"),
    "biases the base has not": (
        "llama", {"target_modules": ["down_proj"], "lora_bias": True}, {},
        "has no model.layers.0.mlp.down_proj.bias"),
    "aLoRA": ("llama", {}, {"alora_invocation_tokens": [1, 2]}, "it is an aLoRA, which acts only after"),
    "Arrow": ("llama", {}, {"arrow_config": {"top_k": 2}}, "merge one of them alone"),
    "QALoRA": ("llama", {}, {"use_qalora": True}, "QA-LoRA belongs to one quantised base"),
    "PiSSA with a randomised decomposition": (
        "llama", {}, {"init_lora_weights": "pissa_niter_4"}, "convert the adapter"),
    "CorDA": ("llama", {}, {"init_lora_weights": "corda"}, "path_initial_model_for_weight_conversion"),
    "LoRA-GA": ("llama", {}, {"init_lora_weights": "lora_ga"}, "path_initial_model_for_weight_conversion"),
    "LoftQ": ("llama", {}, {"init_lora_weights": "loftq"}, "LoftQ changed the base before training"),
    "a config that speaks of DoRA and a file without": (
        "llama", {}, {"use_dora": True}, "modules have magnitudes (use_dora), but the file has none"),
    "a file with DoRA and a config without": (
        "llama", {"use_dora": True}, {"use_dora": False},
        "modules have no magnitudes (use_dora), but the file does"),
    "experts that do not divide": (
        "qwen2_moe", {"target_modules": ["q_proj"], "target_parameters": EXPERTS}, {"r": 3}, "rank"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_variants_without_a_correct_merge_are_refused_with_the_reason(case: str, tmp_path: Path) -> None:
    kind, fields, edits, sentence = REFUSED[case]
    base = save_base(tmp_path / "base", kind)
    adapter = save_adapter(base, tmp_path / "tone", **{"target_modules": MATRICES, **fields})
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, **edits}))

    with pytest.raises(AdaptryError) as caught:
        merged(base, adapter)

    assert sentence in caught.value.message
    assert isinstance(caught.value, CheckFailed | Unsupported | InvalidConfig)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("router", [{}, {"top_k": 2, "router_temperature": 0.5}])
def test_an_arrow_router_is_refused_by_peft_and_by_the_check(router: dict[str, Any], tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=MATRICES)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "arrow_config": router}))

    with pytest.raises(AttributeError):
        PeftModel.from_pretrained(load(base), adapter)
    found = check(open_dir(adapter), fingerprint(open_checkpoint(base))).findings
    assert [one.code for one in found if one.severity == "blocks"] == ["peft_refuses"]


BROKEN = {
    "one missing": lambda name, tensor: {},
    "one turned": lambda name, tensor: {name: tensor.T.contiguous()},
    "one renamed": lambda name, tensor: {name.replace("lora_", "lora_x"): tensor},
    "one cut": lambda name, tensor: {name: tensor[..., :-1].contiguous()},
    "one under a foreign prefix": lambda name, tensor: {f"other.{name}": tensor},
    "one more": lambda name, tensor: {name: tensor, f"{name}.more": tensor.clone()},
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("role", ["lora_A", "lora_B", "magnitude", "embedding_A", "embedding_B"])
def test_a_file_with_a_broken_tensor_never_merges(role: str, how: str, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "gpt2")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=["c_proj", "wpe"], use_dora=True)
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in sorted(tensors) if role in name)
    if how == "one turned" and tensors[name].ndim == 1:
        pytest.skip("a vector has no other way round")
    changed = {
        **{key: tensor for key, tensor in tensors.items() if key != name},
        **BROKEN[how](name, tensors[name]),
    }
    save_file(changed, adapter / "adapter_model.safetensors")

    with pytest.raises(AdaptryError):
        merged(base, adapter)

    assert not (tmp_path / "merged").exists()


def test_lora_is_in_the_table_of_methods() -> None:
    method = METHODS["lora"]

    assert (method.title, method.lora_form, method.is_mergeable) == ("LoRA", "itself", True)
