"""Exported adapters in the real llama.cpp: its output equals PEFT's with the original adapter.

For each case in which this engine is silently wrong: the finding, the wrong output without the repair, and
the right output with it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks.runtimes import check_runtime, parse_runtime
from adaptry.compute.exporting import gguf_file
from adaptry.compute.exporting.export import export
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.layout_conversion.convert import convert_layout
from adaptry.compute.lazy_adapters.folder_writer import write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import CheckFailed, Unsupported

from .llamacpp import PROMPT, VOCABULARY, log_probabilities, write_base

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "initializer_range": 0.2,
}
CLOSE = 2e-4
"""Two libraries' float32 sums of such a model differ by less (seen: 2e-5); a wrong scale by 0.1 and more."""
CLOSE_WITH_GELU = 5e-3
"""Its GELU is looked up in a table of half floats (seen: 1e-3, without an adapter too)."""
LLAMACPP = parse_runtime("llama.cpp")


@dataclass(frozen=True)
class Base:
    """One model for both programs: in memory, as a checkpoint folder, and as llama.cpp's file."""

    model: PreTrainedModel
    folder: Path
    gguf: Path

    @property
    def setting(self) -> ExportOptions:
        return ExportOptions(fingerprint(open_checkpoint(self.folder)), lambda: open_checkpoint(self.folder))


def made(model: PreTrainedModel, folder: Path, arch: gguf.MODEL_ARCH, **how: Any) -> Base:
    model.eval()
    model.save_pretrained(folder / "base")
    file = write_base(model, arch, folder / "base.gguf", **how)
    return Base(model, folder / "base", file)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Base:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False))
    interleaved = {"q_proj.weight": 4, "k_proj.weight": 2}
    return made(model, tmp_path_factory.mktemp("llama"), gguf.MODEL_ARCH.LLAMA, interleaved=interleaved)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Base:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            n_embd=64, n_layer=2, n_head=4, vocab_size=VOCABULARY, n_positions=128, initializer_range=0.2
        )
    )
    return made(model, tmp_path_factory.mktemp("gpt2"), gguf.MODEL_ARCH.GPT2, interleaved={}, flipped=True)


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Base:
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=3, num_experts_per_tok=2))
    interleaved = {"q_proj.weight": 4, "k_proj.weight": 2}
    return made(model, tmp_path_factory.mktemp("mixtral"), gguf.MODEL_ARCH.LLAMA, interleaved=interleaved)


def trained(base: Base, folder: Path, **config: Any) -> Path:
    """A LoRA of the base with random factors, as PEFT saves it."""
    torch.manual_seed(1)
    tuned = get_peft_model(copy.deepcopy(base.model), LoraConfig(**{"r": 8, "lora_alpha": 8, **config}))
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, 0, 0.1)
    tuned.save_pretrained(str(folder))
    return folder


def by_peft(base: Base, adapter: Path) -> torch.Tensor:
    model = PeftModel.from_pretrained(copy.deepcopy(base.model), str(adapter)).eval()
    with torch.no_grad():
        return model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def as_converted_without_a_repair(base: Base, adapter: Path, folder: Path) -> Path:
    """The result of llama.cpp's own converter: the config's single alpha, and unchanged factors except for
    their order.
    """
    config = json.loads((adapter / "adapter_config.json").read_text())
    plain = folder / "plain"
    plain.mkdir()
    dropped = {"use_rslora": False, "alpha_pattern": {}, "rank_pattern": {}, "fan_in_fan_out": False}
    (plain / "adapter_config.json").write_text(json.dumps({**config, **dropped}))
    (plain / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    gguf_file.write(ParentAdapter(open_dir(plain), "plain"), folder / "unrepaired", base.setting)
    return folder / "unrepaired" / gguf_file.NAME


def exported(base: Base, adapter: Path, folder: Path) -> Path:
    export(ParentAdapter(open_dir(adapter), "it"), folder / "out", base.setting, runtime=LLAMACPP)
    return folder / "out" / gguf_file.NAME


def codes(base: Base, adapter: Path) -> set[str]:
    found = check_runtime(open_dir(adapter), LLAMACPP, base.setting.record)
    assert found.outcome != "as_trained"
    return {finding.code for finding in found.findings}


ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WRONG_SCALES: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True},
    "alpha_pattern": {"alpha_pattern": {"q_proj": 32, "layers.1.mlp.up_proj": 2}},
    "rank_pattern_with_rslora": {"use_rslora": True, "rank_pattern": {"v_proj": 3}},
}


def test_the_base_itself_answers_as_in_transformers(llama: Base) -> None:
    with torch.no_grad():
        expected = llama.model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)
    assert apart(log_probabilities(llama.gguf, None), expected) < CLOSE


@pytest.mark.parametrize("targets", [["q_proj", "k_proj"], ALL], ids=["interleaved rows", "all"])
def test_a_plain_lora_answers_as_in_peft(llama: Base, tmp_path: Path, targets: list[str]) -> None:
    adapter = trained(llama, tmp_path / "lora", target_modules=targets)
    expected = by_peft(llama, adapter)
    assert apart(log_probabilities(llama.gguf, exported(llama, adapter, tmp_path)), expected) < CLOSE
    assert apart(log_probabilities(llama.gguf, None), expected) > 0.1


@pytest.mark.parametrize("case", WRONG_SCALES)
def test_a_scale_that_llamacpp_ignores_is_folded_in(llama: Base, tmp_path: Path, case: str) -> None:
    adapter = trained(llama, tmp_path / "lora", target_modules=ALL, **WRONG_SCALES[case])
    assert "scale" in codes(llama, adapter)
    expected = by_peft(llama, adapter)
    wrong = as_converted_without_a_repair(llama, adapter, tmp_path)
    assert apart(log_probabilities(llama.gguf, wrong), expected) > 0.1
    assert apart(log_probabilities(llama.gguf, exported(llama, adapter, tmp_path)), expected) < CLOSE


def test_an_input_embedding_answers_as_in_peft(llama: Base, tmp_path: Path) -> None:
    adapter = trained(llama, tmp_path / "lora", target_modules=["embed_tokens", "lm_head", "v_proj"])
    expected = by_peft(llama, adapter)
    assert apart(log_probabilities(llama.gguf, exported(llama, adapter, tmp_path)), expected) < CLOSE


def test_factors_are_not_transposed_for_a_transposed_base(gpt2: Base, tmp_path: Path) -> None:
    adapter = trained(
        gpt2, tmp_path / "lora", target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True
    )
    assert "fan_in_fan_out" in codes(gpt2, adapter)
    expected = by_peft(gpt2, adapter)
    assert apart(log_probabilities(gpt2.gguf, exported(gpt2, adapter, tmp_path)), expected) < CLOSE_WITH_GELU
    assert apart(log_probabilities(gpt2.gguf, None), expected) > 0.1


@pytest.mark.filterwarnings(
    "ignore:The following .*_pattern keys:RuntimeWarning"
)  # PEFT's own warning, about its own patterns
def test_split_experts_answer_as_in_peft(mixtral: Base, tmp_path: Path) -> None:
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    adapter = trained(mixtral, tmp_path / "lora", target_modules=["q_proj"], target_parameters=parameters)
    expected = by_peft(mixtral, adapter)
    assert apart(log_probabilities(mixtral.gguf, exported(mixtral, adapter, tmp_path)), expected) < CLOSE
    assert apart(log_probabilities(mixtral.gguf, None), expected) > 0.1


@pytest.mark.filterwarnings(
    "ignore:The following .*_pattern keys:RuntimeWarning"
)  # PEFT's own warning, about its own patterns
def test_separate_experts_are_fused_for_peft(mixtral: Base, tmp_path: Path) -> None:
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    fused = trained(mixtral, tmp_path / "fused", target_modules=["q_proj"], target_parameters=parameters)
    each = ParentAdapter(open_dir(fused), "it")
    write_adapter(
        convert_layout(each, fingerprint(open_checkpoint(mixtral.folder)), "transformers4"), tmp_path / "each"
    )
    apart_again = ParentAdapter(open_dir(tmp_path / "each"), "it")
    made = export(apart_again, tmp_path / "out", mixtral.setting, runtime=parse_runtime("peft"))
    assert made.repairs == ("experts_together",)
    assert apart(by_peft(mixtral, tmp_path / "out"), by_peft(mixtral, fused)) < CLOSE


def test_another_method_becomes_a_lora_and_answers_as_in_peft(llama: Base, tmp_path: Path) -> None:
    from peft import LoHaConfig

    torch.manual_seed(2)
    tuned = get_peft_model(
        copy.deepcopy(llama.model), LoHaConfig(r=2, alpha=4, target_modules=["q_proj", "v_proj"])
    )
    for name, parameter in tuned.named_parameters():
        if "hada" in name:
            torch.nn.init.normal_(parameter, 0, 0.3)
    tuned.save_pretrained(str(tmp_path / "loha"))
    expected = by_peft(llama, tmp_path / "loha")
    assert codes(llama, tmp_path / "loha") == {"method_unknown"}
    assert (
        apart(log_probabilities(llama.gguf, exported(llama, tmp_path / "loha", tmp_path)), expected) < CLOSE
    )


def refused(*kinds: type[Exception]) -> Callable[..., Any]:
    return lambda match: pytest.raises(kinds, match=match)


def test_a_module_without_a_gguf_tensor_is_refused_by_name(llama: Base, tmp_path: Path) -> None:
    tied = ExportOptions(
        llama.setting.record.model_copy(
            update={"facts": {**llama.setting.record.facts, "tie_word_embeddings": True}}
        )
    )  # type: ignore[union-attr]
    adapter = trained(llama, tmp_path / "lora", target_modules=["lm_head"])
    with refused(Unsupported)("lm_head.*one weight for input and output"):
        export(ParentAdapter(open_dir(adapter), "it"), tmp_path / "out", tied, format="gguf")
    odd = ExportOptions(
        llama.setting.record.model_copy(
            update={"facts": {**llama.setting.record.facts, "model_type": "mamba"}}
        )
    )  # type: ignore[union-attr]
    with refused(Unsupported)("for a mamba, but GGUF adapters can be written for llama"):
        export(ParentAdapter(open_dir(adapter), "it"), tmp_path / "out", odd, format="gguf")
    with refused(CheckFailed)("--base"):
        export(ParentAdapter(open_dir(adapter), "it"), tmp_path / "out", ExportOptions(), format="gguf")
    assert not (tmp_path / "out").exists()


def test_an_update_of_an_embedding_that_is_also_the_head_is_refused(llama: Base, tmp_path: Path) -> None:
    """The server aborts with it (`tests/runtimes/test_llamacpp_families.py`)."""
    adapter = open_dir(trained(llama, tmp_path / "lora", target_modules=["embed_tokens"]))
    record = llama.setting.record
    assert record is not None
    tied = record.model_copy(update={"facts": {**record.facts, "tie_word_embeddings": True}})
    assert check_runtime(adapter, LLAMACPP, record).outcome == "as_trained"
    assert check_runtime(adapter, LLAMACPP, tied).outcome == "refused"
