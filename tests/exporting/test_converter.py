"""Our GGUF adapters compared with those of llama.cpp's own converter: equal tensors for every architecture.

For a base whose weights are stored transposed, that converter is wrong; the engine's output shows which file
is right.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers.pytorch_utils import Conv1D

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks.runtimes import parse_runtime
from adaptry.compute.exporting import gguf_file
from adaptry.compute.exporting.export import export
from adaptry.compute.exporting.gguf_names import ARCHITECTURES
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.foreign_layouts.gguf_lora import convert_gguf_to_peft
from adaptry.compute.layout_conversion.convert import convert_layout
from adaptry.compute.lazy_adapters.folder_writer import write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter

from .llamacpp import CONVERTER, PROMPT, VOCABULARY, log_probabilities, write_base

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(CONVERTER is None, reason="no environment for llamacpp: `make environments` makes it"),
]

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
GPT2: dict[str, Any] = {
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "vocab_size": VOCABULARY,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FURTHER: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 3},
    "qwen2_moe": {"num_experts": 3, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48},
    "qwen3_moe": {"num_experts": 3, "moe_intermediate_size": 32},
    "olmoe": {"num_experts": 3},
    **{name: {"head_dim": 16} for name in ("gemma", "gemma2", "gemma3_text", "qwen3")},
}
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def model_of(kind: str, folder: Path) -> Any:
    """(`Any`: each architecture has its own class.)"""
    torch.manual_seed(0)
    fields = GPT2 if kind == "gpt2" else {**SIZES, **FURTHER.get(kind, {})}
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(kind, **fields)
    ).eval()
    model.save_pretrained(folder)
    vocabulary = {
        "model": {"vocab": {str(number): number for number in range(VOCABULARY)}},
        "added_tokens": [],
    }
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))
    return model


def adapted(model: Any, folder: Path, **config: Any) -> Path:
    """A LoRA with random factors, as PEFT saves it. (`Any`: as above.)"""
    torch.manual_seed(1)
    tuned = get_peft_model(copy.deepcopy(model), LoraConfig(r=4, lora_alpha=8, **config))
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, 0, 0.1)
    tuned.save_pretrained(str(folder))
    return folder


def linear_names(model: Any) -> list[str]:
    """The last parts of its linear layers' names. (`Any`: as above.)"""
    kinds = (torch.nn.Linear, Conv1D)
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, kinds)}
    return sorted(names - {"lm_head", "gate", "shared_expert_gate"})


def theirs(adapter: Path, base: Path, file: Path) -> Path:
    assert CONVERTER is not None
    run = subprocess.run(
        [sys.executable, CONVERTER, adapter, "--base", base, "--outfile", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-1000:]
    return file


def ours(adapter: Path, base: Path, folder: Path) -> Path:
    setting = ExportOptions(fingerprint(open_checkpoint(base)))
    export(ParentAdapter(open_dir(adapter), "it"), folder, setting, runtime=parse_runtime("llama.cpp"))
    return folder / gguf_file.NAME


def read(file: Path) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """The tensors, and the metadata that identify the file. (`Any`: gguf's.)"""
    reader = gguf.GGUFReader(file)
    words = {
        key: field.contents()
        for key, field in reader.fields.items()
        if key.startswith(("adapter.", "general.architecture", "general.type"))
    }
    return {tensor.name: tensor.data for tensor in reader.tensors}, words


def assert_same(one: Path, other: Path) -> None:
    (first, said), (second, also) = read(one), read(other)
    assert first.keys() == second.keys()
    assert said == also
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if kind != "gpt2"])
def test_every_number_equals_the_converters(kind: str, tmp_path: Path) -> None:
    model = model_of(kind, tmp_path / "base")
    adapter = adapted(model, tmp_path / "lora", target_modules=linear_names(model))
    assert_same(
        theirs(adapter, tmp_path / "base", tmp_path / "theirs.gguf"),
        ours(adapter, tmp_path / "base", tmp_path / "ours"),
    )


@pytest.mark.parametrize("kind", [kind for kind in ARCHITECTURES if kind != "gpt2"])
def test_the_converters_files_are_read_back_exactly(kind: str, tmp_path: Path) -> None:
    model = model_of(kind, tmp_path / "base")
    adapter = adapted(model, tmp_path / "lora", target_modules=linear_names(model))
    file = theirs(adapter, tmp_path / "base", tmp_path / "theirs.gguf")
    record = fingerprint(open_checkpoint(tmp_path / "base"))
    write_adapter(convert_gguf_to_peft(file, "it", record), tmp_path / "back")
    wanted = load_file(adapter / "adapter_model.safetensors")
    found = load_file(tmp_path / "back" / "adapter_model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    scales = [{m.path: m.scale for m in open_dir(each).spec.modules} for each in (adapter, tmp_path / "back")]
    assert scales[0] == scales[1]


@pytest.mark.filterwarnings(
    "ignore:The following .*_pattern keys:RuntimeWarning"
)  # PEFT's own warning, about its own patterns
@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe"])
def test_experts_equal_the_converters(kind: str, tmp_path: Path) -> None:
    model = model_of(kind, tmp_path / "base")
    fused = adapted(model, tmp_path / "fused", target_modules=["q_proj"], target_parameters=EXPERTS)
    record = fingerprint(open_checkpoint(tmp_path / "base"))
    write_adapter(
        convert_layout(ParentAdapter(open_dir(fused), "it"), record, "transformers4"), tmp_path / "each"
    )
    assert_same(
        theirs(tmp_path / "each", tmp_path / "base", tmp_path / "theirs.gguf"),
        ours(fused, tmp_path / "base", tmp_path / "ours"),
    )


def test_our_gguf_is_right_where_the_converters_transposition_is_wrong(
    tmp_path: Path,
) -> None:
    model = model_of("gpt2", tmp_path / "base")
    adapter = adapted(
        model, tmp_path / "lora", target_modules=["attn.c_proj"], fan_in_fan_out=True
    )  # square, so it loads
    base = write_base(model, gguf.MODEL_ARCH.GPT2, tmp_path / "base.gguf", {}, flipped=True)
    with torch.no_grad():
        tuned = PeftModel.from_pretrained(copy.deepcopy(model), str(adapter)).eval()
        expected = tuned(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)
    wrong = log_probabilities(base, theirs(adapter, tmp_path / "base", tmp_path / "theirs.gguf"))
    right = log_probabilities(base, ours(adapter, tmp_path / "base", tmp_path / "ours"))
    assert float((right - expected).abs().max()) < 0.2 * float((wrong - expected).abs().max())
    assert float((right - expected).abs().max()) < 5e-3
