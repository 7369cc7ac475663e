"""torchtune's files converted to PEFT's layout: rows of queries and keys are ordered as by its own
`tune_to_hf`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adaptry import open_dir
from adaptry.testing.samples import tiny_base

from .into_peft import Weights, assert_same, converted, merged, run
from .other_layouts import torchtune

NAMES = {
    "attn.q_proj": "self_attn.q_proj",
    "attn.k_proj": "self_attn.k_proj",
    "attn.v_proj": "self_attn.v_proj",
    "attn.output_proj": "self_attn.o_proj",
    "mlp.w1": "mlp.gate_proj",
    "mlp.w2": "mlp.down_proj",
    "mlp.w3": "mlp.up_proj",
}
HEADS = 2
Rows = Callable[[torch.Tensor], torch.Tensor]


def base_of(folder: Path, model: str = "llama") -> Path:
    base = tiny_base(folder)
    config = json.loads((base / "config.json").read_text()) | {"model_type": model}
    (base / "config.json").write_text(json.dumps(config))
    return base


def to_hf(rows: torch.Tensor) -> torch.Tensor:
    """`_permute` of torchtune's `tune_to_hf`."""
    return rows.view(HEADS, rows.shape[0] // HEADS // 2, 2, -1).transpose(1, 2).reshape(rows.shape)


def to_tune(rows: torch.Tensor) -> torch.Tensor:
    """`_permute` of torchtune's `hf_to_tune`."""
    return rows.view(HEADS, 2, rows.shape[0] // HEADS // 2, -1).transpose(1, 2).reshape(rows.shape)


def by_torchtune(source: Path, base: Path, reorders: bool) -> Weights:
    """`get_merged_lora_ckpt` in torchtune's order of rows, then `tune_to_hf`."""
    factors = load_file(source / "adapter_model.safetensors")
    weights = load_file(base / "model.safetensors")
    for layer in range(2):
        for inside, name in NAMES.items():
            at, to = f"layers.{layer}.{inside}", f"model.layers.{layer}.{name}.weight"
            turns = reorders and inside in ("attn.q_proj", "attn.k_proj")
            weight = to_tune(weights[to]) if turns else weights[to]
            weight = weight + 1.5 * factors[f"{at}.lora_b.weight"] @ factors[f"{at}.lora_a.weight"]
            if (magnitude := factors.get(f"{at}.magnitude")) is not None:
                weight = weight * (magnitude / torch.linalg.norm(weight, dim=1))[:, None]
            weights[to] = to_hf(weight) if turns else weight
    return weights


@pytest.mark.parametrize(
    ("model", "reorders"), [("llama", True), ("mistral", True), ("qwen2", False)], ids=str
)
def test_a_merge_equals_torchtunes_on_each_model(model: str, reorders: bool, tmp_path: Path) -> None:
    base, source = base_of(tmp_path / "base", model), torchtune(tmp_path / "out")
    wanted = by_torchtune(source, base, reorders)
    assert_same(merged(source, base, tmp_path / "merged"), wanted, load_file(base / "model.safetensors"))


def test_a_dora_has_its_magnitudes_in_the_order_of_the_rows(tmp_path: Path) -> None:
    base, source = base_of(tmp_path / "base"), torchtune(tmp_path / "out", is_dora=True)
    wanted = by_torchtune(source, base, reorders=True)
    assert_same(merged(source, base, tmp_path / "merged"), wanted, load_file(base / "model.safetensors"))


def test_a_converted_torchtune_adapter_is_a_lora_of_peft(tmp_path: Path) -> None:
    base, source = base_of(tmp_path / "base"), torchtune(tmp_path / "out")
    folder = converted(source, tmp_path / "peft", "--base", base)
    adapter = open_dir(folder)
    assert adapter.format.name == "peft"
    assert {module.scale for module in adapter.spec.modules} == {1.5}
    wanted = by_torchtune(source, base, reorders=True)
    assert_same(merged(folder, base, tmp_path / "merged"), wanted, load_file(base / "model.safetensors"))
    told = run("check", source, "--base", base)
    assert told.exit_code == 0, told.output


def refusal(*words: str | Path) -> str:
    told = run(*words)
    assert told.exit_code != 0, told.output
    return " ".join(told.output.split())


def test_an_adapter_without_enough_information_is_refused_with_a_remedy(tmp_path: Path) -> None:
    made, source, base = tmp_path / "made", torchtune(tmp_path / "out"), base_of(tmp_path / "base")
    assert "pass --base BASE" in refusal("convert", source, "-o", made)
    other = base_of(tmp_path / "other", "cohere")
    assert "is torchtune's LoRA for a cohere" in refusal("convert", source, "--base", other, "-o", made)
    (source / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    told = refusal("merge", source, "--base", base, "-o", made)
    assert "has no lora_alpha in adapter_config.json" in told
    assert not made.exists()


def test_rows_that_the_bases_heads_do_not_divide_are_refused(tmp_path: Path) -> None:
    source, base = torchtune(tmp_path / "out"), base_of(tmp_path / "base")
    config = json.loads((base / "config.json").read_text()) | {"num_attention_heads": 3}
    (base / "config.json").write_text(json.dumps(config))
    told = refusal("convert", source, "--base", base, "-o", tmp_path / "made")
    assert "has 16 outputs, which is not a multiple of the base's 3 heads" in told
    assert not (tmp_path / "made").exists()


def test_torchtunes_pickle_is_refused_with_the_conversion_command(tmp_path: Path) -> None:
    source = torchtune(tmp_path / "out")
    weights = load_file(source / "adapter_model.safetensors")
    (source / "adapter_model.safetensors").unlink()
    torch.save(weights, source / "adapter_model.pt")
    told = refusal("push", source, "acme/tone")
    assert "holds its weights as a pickle (adapter_model.pt)" in told
    line = told[told.index('python -c "') + len('python -c "') : told.rindex('"')]
    exec(line.replace("'adapter_model.", f"'{source}/adapter_model."), {})  # our own line, on our own file
    assert open_dir(source).format.name == "torchtune"
    (source / "adapter_model.safetensors").unlink()
    (source / "adapter_config.json").unlink()
    assert '"lora_alpha": ALPHA' in refusal("push", source, "acme/tone")
