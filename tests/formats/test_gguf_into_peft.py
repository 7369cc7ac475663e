"""llama.cpp's GGUF LoRA converted to PEFT's layout: an exported adapter is restored exactly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

from adaptry import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.foreign_layouts.gguf_lora import open_gguf_as_peft
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.errors import Invalid, InvalidWeights

from .into_peft import converted, run

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 2, "vocab_size": 64, "tie_word_embeddings": False,
}  # fmt: skip
WEIGHTS = "adapter_model.safetensors"


def saved(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return saved(LlamaForCausalLM(LlamaConfig(**SIZES)), tmp_path / "base")


def trained(base: Path, folder: Path, **config: Any) -> Path:
    """A LoRA with random factors, as PEFT saves it. (`Any`: PEFT's own settings.)"""
    torch.manual_seed(1)
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, **config))
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, 0, 0.1)
    tuned.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def exported(adapter: Path, base: Path, target: Path) -> Path:
    told = run("export", adapter, "--base", base, "--format", "gguf", "-o", target)
    assert told.exit_code == 0, told.output
    return target


def scales(folder: Path) -> dict[str, float]:
    return {module.path: module.scale for module in open_dir(folder).spec.modules}


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": "all-linear", "lora_alpha": 6},
        {
            "target_modules": ["q_proj", "k_proj"],
            "rank_pattern": {"k_proj": 2},
            "alpha_pattern": {"k_proj": 4},
            "lora_alpha": 4,
        },
        {"target_modules": ["o_proj", "embed_tokens"], "lora_alpha": 8},
    ],
    ids=["every linear layer", "ranks", "an embedding"],
)
def test_an_exported_gguf_is_converted_back(config: dict[str, Any], llama: Path, tmp_path: Path) -> None:
    adapter = trained(llama, tmp_path / "lora", **config)
    file = exported(adapter, llama, tmp_path / "gguf") / "adapter.gguf"
    for source in (file, file.parent):
        back = converted(source, tmp_path / f"back from {source.name}", "--base", llama)
        wanted, found = load_file(adapter / WEIGHTS), load_file(back / WEIGHTS)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        assert scales(back) == scales(adapter)


def merged(source: Path, base: Path, target: Path) -> dict[str, torch.Tensor]:
    told = run("merge", source, "--base", base, "-o", target)
    assert told.exit_code == 0, told.output
    return load_file(target / "model.safetensors")


def test_a_gguf_is_merged_like_its_conversion(llama: Path, tmp_path: Path) -> None:
    adapter = trained(llama, tmp_path / "lora", target_modules="all-linear", lora_alpha=6)
    file = exported(adapter, llama, tmp_path / "gguf") / "adapter.gguf"
    back = converted(file, tmp_path / "back", "--base", llama)
    wanted = merged(back, llama, tmp_path / "from the folder")
    found = merged(file, llama, tmp_path / "from the file")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    verified = run("verify-merge", tmp_path / "from the file")
    assert verified.exit_code == 0, verified.output
    combined = run("combine", f"{file}=0.5", adapter, "--base", llama, "-o", tmp_path / "combined")
    assert combined.exit_code == 0, combined.output
    half = run("combine", f"{adapter}=1.5", "-o", tmp_path / "wanted")
    assert half.exit_code == 0, half.output
    wanted = merged(tmp_path / "wanted", llama, tmp_path / "one")
    found = merged(tmp_path / "combined", llama, tmp_path / "other")
    assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)


def test_a_gguf_is_checked_in_the_names_of_its_base(llama: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "one.gguf", factors("blk.0.attn_q.weight"))
    told = run("check", file, "--base", llama, "--weights")
    assert told.exit_code == 0, told.output
    assert "no findings; it can be used" in told.output
    assert "pass --base NAME" in refusal("check", file)
    other = written(tmp_path / "other.gguf", factors("blk.7.attn_q.weight"))
    assert "does not correspond to a module of this base" in refusal("check", other, "--base", llama)
    told = run("check", file, "--base", llama, "--runtime", "vllm")
    assert told.exit_code == 2
    assert "llama.cpp alone loads a .gguf" in told.output


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "untrained": lambda ups: [up.fill(0) for up in ups.values()],
    "partly untrained": lambda ups: ups["blk.0.attn_q.weight.lora_b"].fill(0),
    "negligible": lambda ups: [np.multiply(up, 1e-20, out=up) for up in ups.values()],
    "nan": lambda ups: ups["blk.1.attn_v.weight.lora_b"].fill(np.nan),
    "infinite": lambda ups: ups["blk.1.attn_v.weight.lora_b"].fill(np.inf),
    "large": lambda ups: [np.multiply(up, 1e3, out=up) for up in ups.values()],
    "overflowing": lambda ups: [np.multiply(up, 1e7, out=up) for up in ups.values()],
}
CODES = {
    "untrained": ["untrained"], "partly untrained": ["modules_untrained"], "negligible": ["untrained"],
    "nan": ["weights_nan"], "infinite": ["weights_infinite"], "large": ["updates_large"],
    "overflowing": ["updates_overflow"],
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_weights_of_a_gguf_are_checked_like_those_of_a_folder(
    dtype: Any, damage: str, llama: Path, tmp_path: Path
) -> None:
    tensors: dict[str, Any] = {}
    for name, rows in (("attn_q", 32), ("attn_v", 16)):
        for layer in range(2):
            tensors |= factors(f"blk.{layer}.{name}.weight", (rows, 32))
    DAMAGES[damage]({name: tensor for name, tensor in tensors.items() if name.endswith("lora_b")})
    with np.errstate(over="ignore"):
        stored = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    if damage == "overflowing" and dtype is np.float16:
        damage = "infinite"  # as llama.cpp's converter writes them
    file = written(tmp_path / "one.gguf", stored)

    told = json.loads(run("check", file, "--base", llama, "--weights", "--json").output)

    assert [found["code"] for found in told["findings"]] == CODES[damage]


@pytest.mark.parametrize("cut", [0, 4096])
def test_nothing_is_merged_of_a_gguf_that_was_written_in_the_meantime(
    cut: int, llama: Path, tmp_path: Path
) -> None:
    adapter = trained(llama, tmp_path / "lora", target_modules="all-linear", lora_alpha=6)
    file = exported(adapter, llama, tmp_path / "gguf") / "adapter.gguf"
    base = open_checkpoint(llama)
    opened = open_gguf_as_peft(file, "one", fingerprint(base))
    size = file.stat().st_size

    def write(*_: object) -> None:
        with file.open("r+b") as stream:
            stream.seek(size - 64)
            stream.write(bytes(64))
            stream.truncate(size - cut)

    with pytest.raises((Invalid, InvalidWeights), match="while it was read; is "):
        merge(
            MergeRecipe(base=str(llama), inputs=(RecipeInput(source="one"),)),
            base,
            [MergeSource(WeightedAdapter(opened, 1.0, "one"))],
            tmp_path / "out",
            progress=write,
        )

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("url", "name"), [("https://huggingface.co/org/model", "org/model"), (None, None)])
def test_the_base_of_a_converted_gguf_is_the_given_one(
    url: str | None, name: str | None, llama: Path, tmp_path: Path
) -> None:
    """llama.cpp's converter writes a title as the base's name, which no program can load."""
    file = written(
        tmp_path / "one.gguf",
        {
            **factors("blk.0.attn_q.weight"),
            **factors("blk.1.attn_q.weight"),
        },
        base={"name": "Model", **({"repo_url": url} if url else {})},
    )
    registry = ("--registry", tmp_path / "registry")
    added = run("base", "add", llama, "--name", "org/model", *registry)
    assert added.exit_code == 0, added.output

    told = run("check", file, "--base", "org/model", "--no-weights", *registry)
    made = run("convert", file, "--base", "org/model", "-o", "acme/tone", *registry)
    shown = json.loads(run("show", "acme/tone", "--json", *registry).stdout)

    assert "base_name_differs" not in told.output
    assert made.exit_code == 0, made.output
    assert shown["version"]["base_status"] == "verified"
    assert open_dir(converted(file, tmp_path / "back", "--base", llama)).config.base_name == name


def test_a_transposed_weight_is_converted_back(tmp_path: Path) -> None:
    config = GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=64, tie_word_embeddings=False
    )
    base = saved(GPT2LMHeadModel(config), tmp_path / "base")
    adapter = trained(base, tmp_path / "lora", target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    back = converted(exported(adapter, base, tmp_path / "gguf"), tmp_path / "back", "--base", base)
    wanted, found = load_file(adapter / WEIGHTS), load_file(back / WEIGHTS)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_experts_are_converted_back_separately_and_merge_equally(tmp_path: Path) -> None:
    config = MixtralConfig(**SIZES, num_local_experts=3, num_experts_per_tok=2)
    base = saved(MixtralForCausalLM(config), tmp_path / "base")
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    adapter = trained(base, tmp_path / "lora", target_modules=["q_proj"], target_parameters=parameters)
    file = tmp_path / "gguf"
    told = run("export", adapter, "--base", base, "--for", "llama.cpp", "-o", file)
    assert told.exit_code == 0, told.output
    back = converted(file, tmp_path / "back", "--base", base)
    before, after = merged(adapter, base, tmp_path / "before"), merged(back, base, tmp_path / "after")
    direct = merged(file, base, tmp_path / "direct")
    assert before.keys() == after.keys() == direct.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    assert all(torch.equal(after[name], direct[name]) for name in after)


def refusal(*words: str | Path) -> str:
    told = run(*words)
    assert told.exit_code != 0, told.output
    return " ".join(told.output.split())


def written(
    path: Path,
    tensors: dict[str, Any],
    kind: str = "lora",
    architecture: str = "llama",
    base: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """A GGUF adapter with these tensors, and these fields about its base."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, kind)
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 8.0)
    for key, value in base.items():
        writer.add_string(f"general.base_model.0.{key}", value)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def factors(name: str, sides: tuple[int, int] = (32, 32)) -> dict[str, Any]:
    down, up = np.ones((4, sides[1]), np.float32), np.ones((sides[0], 4), np.float32)
    return {f"{name}.lora_a": down, f"{name}.lora_b": up}


def test_a_gguf_that_cannot_be_converted_back_is_refused_with_the_reason(llama: Path, tmp_path: Path) -> None:
    def asked(path: Path) -> str:
        return refusal("convert", path, "--base", llama, "-o", tmp_path / "made")

    query = "blk.0.attn_q.weight"
    file = written(tmp_path / "one.gguf", factors(query))
    assert "pass --base BASE" in refusal("convert", file, "-o", tmp_path / "made")
    assert "does not correspond to a module of this base" in asked(
        written(tmp_path / "2.gguf", factors("blk.7.attn_q.weight"))
    )
    assert "this base" in asked(written(tmp_path / "3.gguf", factors(query, (64, 64))))
    other = written(tmp_path / "4.gguf", factors(query), architecture="qwen2")
    assert "is for llama.cpp's qwen2, but the base is its llama" in asked(other)
    assert "is not a LoRA of llama.cpp" in asked(written(tmp_path / "5.gguf", factors(query), kind="other"))
    half = {f"{query}.lora_a": np.ones((4, 32), np.float32)}
    assert "only one factor" in asked(written(tmp_path / "6.gguf", half))
    whole = {"output_norm.weight": np.ones(32, np.float32)}
    assert "has output_norm.weight, which is not a factor" in asked(written(tmp_path / "7.gguf", whole))
    (tmp_path / "8.gguf").write_bytes(b"GGUF" + b"\xff" * 64)
    assert "is not a readable GGUF file" in asked(tmp_path / "8.gguf")
    assert not (tmp_path / "made").exists()


def test_commands_without_a_base_ask_to_convert_a_gguf_first(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    written(tmp_path / "it" / "adapter.gguf", factors("blk.0.attn_q.weight"))
    told = refusal("resize", tmp_path / "it", "--rank", "2", "-o", tmp_path / "made")
    assert f"adaptry convert {tmp_path / 'it' / 'adapter.gguf'} --base BASE" in told
