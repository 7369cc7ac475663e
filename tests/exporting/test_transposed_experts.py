"""Fused experts from PEFT before 0.19, whose factors are transposed: if an expert is square, loading them
unchanged is wrong without an error; merging them gives the trained weights.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks.runtimes import check_runtime, parse_runtime
from adaptry.compute.exporting.export import export
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.layout_conversion.convert import convert_layout
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.lazy_adapters.sites import site_of
from adaptry.core.errors import CheckFailed

peft = pytest.importorskip("peft", reason="PEFT makes the adapter: pip install 'adaptry[demo]'")

EXPERTS = 3
PARAMETER = "model.layers.{}.mlp.experts.gate_up_proj"


@pytest.fixture(scope="module")
def model() -> MixtralForCausalLM:
    """A model in which gate and up of an expert together form a square matrix."""
    torch.manual_seed(0)
    return MixtralForCausalLM(
        MixtralConfig(
            hidden_size=32, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, vocab_size=64, num_local_experts=EXPERTS, num_experts_per_tok=2,
            initializer_range=0.2,
        )
    ).eval()  # fmt: skip


@pytest.fixture
def setting(model: MixtralForCausalLM, tmp_path: Path) -> ExportOptions:
    base = tmp_path / "base"
    model.save_pretrained(base)
    return ExportOptions(fingerprint(open_checkpoint(base)), lambda: open_checkpoint(base))


@pytest.fixture
def older(model: MixtralForCausalLM, tmp_path: Path) -> Path:
    """An adapter as PEFT 0.18 writes it: with square experts, its shapes are also valid today."""
    config = peft.LoraConfig(
        r=2, lora_alpha=8, target_modules=[], target_parameters=["mlp.experts.gate_up_proj"]
    )
    tuned = peft.get_peft_model(copy.deepcopy(model), config)
    for name, value in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value, 0, 0.3)
    tuned.save_pretrained(str(tmp_path / "older"))
    file = tmp_path / "older" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "peft_version": "0.18.1"}))
    return tmp_path / "older"


def as_trained(model: MixtralForCausalLM, adapter: Path) -> torch.Tensor:
    """The logits with the update of PEFT 0.18 (`ParamWrapper.get_delta_weight`): "o r e, e r i -> e i o"."""
    tensors, changed = load_file(adapter / "adapter_model.safetensors"), copy.deepcopy(model)
    for layer in range(2):
        key = f"base_model.model.model.layers.{layer}.mlp.experts.lora"
        down = tensors[f"{key}_A.weight"].reshape(EXPERTS, -1, 32)
        up = tensors[f"{key}_B.weight"].reshape(32, -1, EXPERTS)
        update = 4.0 * torch.einsum("o r e, e r i -> e i o", up, down)
        changed.get_parameter(PARAMETER.format(layer)).data += update
    return logits(changed)


def logits(model: MixtralForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(12)[None]).logits


@pytest.mark.parametrize(
    ("engine", "outcome"),
    [
        ("peft", "not_as_trained"),
        ("vllm", "not_as_trained"),
        # These two find no name of Mixtral's experts, which are stored separately on disk.
        ("llama.cpp", "refused"),
        ("mistral.rs", "refused"),
    ],
)
def test_transposed_experts_are_reported_and_merged_as_trained(
    model: MixtralForCausalLM, setting: ExportOptions, older: Path, tmp_path: Path, engine: str, outcome: str
) -> None:
    found = check_runtime(open_dir(older), parse_runtime(engine), setting.record)
    assert found.outcome == outcome
    assert "experts_turned" in {finding.code for finding in found.findings}
    loaded = logits(peft.PeftModel.from_pretrained(copy.deepcopy(model), str(older)))
    assert float((loaded - as_trained(model, older)).abs().max()) > 0.1

    made = export(
        ParentAdapter(open_dir(older), "it"), tmp_path / "out", setting, runtime=parse_runtime(engine)
    )

    assert made.format == "checkpoint"
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32))
    torch.testing.assert_close(merged, as_trained(model, older), rtol=0, atol=1e-5)


def test_engines_that_would_misread_transposed_experts_are_refused(
    setting: ExportOptions, older: Path, tmp_path: Path
) -> None:
    it = ParentAdapter(open_dir(older), "it")
    assert setting.record is not None
    with pytest.raises(CheckFailed, match=r"PEFT 0\.18\.1.*adaptry merge"):
        convert_layout(it, setting.record, "transformers4")
    with pytest.raises(CheckFailed, match=r"PEFT 0\.18\.1.*adaptry merge"):
        site_of(it.adapter, it.adapter.spec.modules[0])
