"""LoRA variants rewritten as plain LoRA: the same updates, and where possible the same factors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from peft.tuners.lora.config import BdLoraConfig  # noqa: E402  (needs torch, here and below)
from safetensors.torch import load_file  # noqa: E402

from ..methods.lora_merging import differing, load, merged_by_peft, save_adapter, save_base  # noqa: E402
from .converted import converted, distance  # noqa: E402

MATRICES = ["q_proj", "v_proj", "down_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
SAME: dict[str, tuple[str, dict[str, Any]]] = {
    "rsLoRA": ("llama", {"use_rslora": True}),
    "Conv1D": ("gpt2", {"target_modules": ["c_attn", "c_proj"]}),
    "convolutions": ("layers", {"target_modules": ["line", "plane", "point", "space"]}),
    "an embedding and a linear": ("layers", {"target_modules": ["words", "linear"]}),
    "attention": ("layers", {"target_modules": ["heads"]}),
    "whole modules": ("llama", {"modules_to_save": ["lm_head"]}),
    "token rows": ("llama", {"trainable_token_indices": [1, 5, 3]}),
    "tied ends": ("tied", {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}),
    "biases": ("llama", {"bias": "all"}),
    "fused experts": ("qwen2_moe", {"target_modules": ["q_proj"], "target_parameters": EXPERTS}),
}
FOLDED: dict[str, tuple[str, dict[str, Any]]] = {
    "patterns": ("llama", {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 5}}),
    "rsLoRA of several ranks": ("llama", {"use_rslora": True, "rank_pattern": {"q_proj": 3}}),
    "fused experts of several scales": (
        "gpt_oss",
        {
            "target_modules": ["q_proj"], "target_parameters": EXPERTS,
            "rank_pattern": {"experts.down_proj": 2}, "alpha_pattern": {"experts.gate_up_proj": 3},
        },
    ),
}  # fmt: skip

pytestmark = pytest.mark.filterwarnings(
    "ignore:The following (rank|alpha)_pattern keys:RuntimeWarning"
)  # parameters match


def factors(folder: Path) -> dict[str, Any]:
    tensors = load_file(folder / "adapter_model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if "lora_" in name}


@pytest.mark.parametrize("case", SAME)
def test_a_common_scale_is_folded_into_alpha(tmp_path: Path, case: str) -> None:
    kind, fields = SAME[case]
    base = save_base(tmp_path / "base", kind)
    adapter = save_adapter(base, tmp_path / "tone", **{"target_modules": MATRICES, **fields})

    made = converted(adapter, None, tmp_path / "plain")
    _load_anywhere(tmp_path / "plain")

    before, after = factors(adapter), factors(tmp_path / "plain")
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    config = json.loads((tmp_path / "plain" / "adapter_config.json").read_text())
    assert not config["use_rslora"] and made.outcome.error == 0
    assert not differing(merged_by_peft(base, tmp_path / "plain"), merged_by_peft(base, adapter))


@pytest.mark.parametrize("case", FOLDED)
def test_different_scales_are_folded_into_the_factors(tmp_path: Path, case: str) -> None:
    kind, fields = FOLDED[case]
    base = save_base(tmp_path / "base", kind)
    adapter = save_adapter(base, tmp_path / "tone", **{"target_modules": MATRICES, **fields})

    made = converted(adapter, None, tmp_path / "plain")

    config = json.loads((tmp_path / "plain" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] and config["rank_pattern"] == config["alpha_pattern"]
    assert all(module.scale == 1 for module in made.adapter.spec.modules)
    wanted, before = merged_by_peft(base, adapter), dict(load(base).state_dict())
    found = merged_by_peft(base, tmp_path / "plain")
    assert distance(found, wanted, before) <= 1e-6 * distance(wanted, before, before)


def test_blocks_on_a_diagonal_become_whole_factors(tmp_path: Path) -> None:
    blocks = BdLoraConfig(nblocks=2, target_modules_bd_a=["down"], target_modules_bd_b=["q_", "v_"])
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=MATRICES, use_bdlora=blocks)

    made = converted(adapter, None, tmp_path / "plain")

    assert "block-diagonal" in made.lazy_adapter.notes[0] and "bdlora" not in made.adapter.spec.traits
    assert not differing(merged_by_peft(base, tmp_path / "plain"), merged_by_peft(base, adapter))


def test_folded_half_precision_factors_stay_in_half_precision_only_if_exact(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    base = save_base(tmp_path / "base", "llama")
    for name, fields in {"one": {}, "several": {"alpha_pattern": {"q_proj": 5}}}.items():
        adapter = save_adapter(base, tmp_path / name, target_modules=MATRICES, **fields)
        path = adapter / "adapter_model.safetensors"
        save_file({key: tensor.bfloat16() for key, tensor in load_file(path).items()}, path)

    kept = converted(tmp_path / "one", None, tmp_path / "kept")
    wide = converted(tmp_path / "several", None, tmp_path / "wide")
    narrow = converted(tmp_path / "several", None, tmp_path / "narrow", dtype="BF16")

    assert (kept.adapter.spec.dtypes, kept.outcome.error) == (("BF16",), 0)
    assert wide.adapter.spec.dtypes == ("F32",) and wide.outcome.error < 1e-7
    assert narrow.adapter.spec.dtypes == ("BF16",) and 1e-4 < narrow.outcome.error < 1e-2


def test_biases_of_the_factors_become_whole_biases(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=["q_proj"], bias="all", lora_bias=True)

    made = converted(adapter, base, tmp_path / "plain")

    assert "lora_bias" not in made.adapter.spec.traits
    assert not differing(merged_by_peft(base, tmp_path / "plain"), merged_by_peft(base, adapter))


def _load_anywhere(folder: Path) -> None:
    """PEFT writes the class of our test model into the config, and would import it."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "auto_mapping": None}))
