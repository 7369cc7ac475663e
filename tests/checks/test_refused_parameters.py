"""LoRAs of parameters and of fused experts with fields that PEFT's layer for a parameter refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
from tests.checks.peft_oracle import save_trained
from tests.methods import experts, zoo
from tests.methods.families import FAMILIES
from tests.methods.mutations import PREFIX
from tests.methods.peft_comparison import ask_peft, ask_us, verdict, write

import adaptry
from adaptry import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.layout_conversion.convert import convert_layout
from adaptry.compute.lazy_adapters.folder_writer import write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter

REFUSED: list[dict[str, Any]] = [  # (`Any`: fields of a config.)
    *({"lora_dropout": 0.05}, {"fan_in_fan_out": True}, {"lora_bias": True}),
    *({"velora_config": {"num_groups": 2}}, {"alora_invocation_tokens": [1]}),
]


@pytest.mark.slow
@pytest.mark.parametrize("fields", REFUSED, ids=" ".join)
def test_a_field_that_peft_refuses_for_parameters_is_reported(fields: dict[str, Any], tmp_path: Path) -> None:
    family = FAMILIES["qwen2_moe"]
    base = family.save(tmp_path / "base", torch.float32)
    config = peft.LoraConfig(r=2, target_modules=[], target_parameters=["mlp.experts.down_proj"])
    save_trained(family.load(base), config, tmp_path / "tone")
    assert not ask_us(base, tmp_path / "tone", tmp_path / "merged").blocked
    file = tmp_path / "tone" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    with pytest.raises(ValueError, match=r"ParamWrapper|variant combination"):
        peft.PeftModel.from_pretrained(family.load(base), tmp_path / "tone")
    (field,) = fields
    assert any(field in each for each in ask_us(base, tmp_path / "tone", tmp_path / "refused").blocked)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_an_old_lora_of_experts_with_dropout_is_refused_and_works_as_the_finding_says(
    name: str, tmp_path: Path
) -> None:
    import random

    family = experts.FAMILIES[name]
    base = family.save(tmp_path / "base", torch.float32)
    files = experts.random_lora(random.Random(1), base)
    dropping = write(tmp_path / "dropping", files.tensors, {**files.config, "lora_dropout": 0.1})
    assert "lora_dropout" in ask_peft(family, base, dropping).error
    (found,) = ask_us(base, dropping, tmp_path / "refused").blocked
    assert "set it to 0 in adapter_config.json" in found

    mended = write(tmp_path / "mended", files.tensors, {**files.config, "lora_dropout": 0})
    converted = tmp_path / "converted"
    parent = ParentAdapter(open_dir(dropping), "it")
    write_adapter(convert_layout(parent, fingerprint(open_checkpoint(base)), "transformers5"), converted)
    for adapter in (mended, converted):
        ours = ask_us(base, adapter, tmp_path / f"merged-{adapter.name}")
        assert ours.folder is not None
        assert verdict(family, ask_peft(family, base, adapter), ours) is None


@pytest.mark.slow
def test_a_single_expert_that_is_saved_whole_is_reported_as_dropped(tmp_path: Path) -> None:
    base = zoo.save("qwen3_moe", tmp_path / "base")
    save_trained(zoo.load("qwen3_moe", base), peft.LoraConfig(r=2, target_modules=["o_proj"]), tmp_path / "a")
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    path = "model.layers.1.mlp.experts.2"
    parts = {
        f"{PREFIX}{name}": value
        for name, value in load_file(base / "model.safetensors").items()
        if name.startswith(f"{path}.")
    }
    assert parts
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    saved = write(tmp_path / "saved", tensors | parts, {**config, "modules_to_save": [path]})
    live = peft.PeftModel.from_pretrained(zoo.load("qwen3_moe", base), saved)
    loaded = peft.set_peft_model_state_dict(live, tensors | parts)
    assert set(parts) <= set(loaded.unexpected_keys)
    assert ask_us(base, saved, tmp_path / "merged").blocked


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "is_refused"), [("mpt", True), ("llama", False)])
def test_replicated_layers_that_peft_does_not_find_are_reported(
    kind: str, is_refused: bool, tmp_path: Path
) -> None:
    base = zoo.save(kind, tmp_path / "base")
    save_trained(zoo.load(kind, base), peft.LoraConfig(r=2, target_modules=["lm_head"]), tmp_path / "tone")
    file = tmp_path / "tone" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "layer_replication": [[0, 1]]}))
    try:
        peft.PeftModel.from_pretrained(zoo.load(kind, base), tmp_path / "tone")
    except ValueError as error:
        assert is_refused, error
    report = adaptry.check(tmp_path / "tone", base=base, registry=tmp_path / "registry", progress=False)
    assert report.is_blocked is is_refused
