"""Sizes and scales that only the config determines, for each module or for all, equal those that PEFT derives
from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch
from safetensors.torch import load_file

from .corpus import cases, make
from .families import FAMILIES
from .mutations import PREFIX
from .peft_comparison import ByUs, State, ask_peft, ask_us, verdict, write

_TWENTY = {"n_frequency": 9, "n_frequency_pattern": dict.fromkeys(["q_proj", "k_proj", "down_proj"], 20)}
_SIXTEEN = {"block_size": 8, "block_size_pattern": dict.fromkeys(["q_proj", "k_proj", "down_proj"], 16)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


def judged(case: str, config: dict[str, Any], extra: State, folder: Path, corpus: Path) -> ByUs:
    """Our answer, which the judge has found right. (`Any`: JSON.)"""
    (wanted,) = [one for one in cases(dtypes=["fp32"]) if str(one) == case]
    made = make(wanted, corpus)
    tensors = {**load_file(made.adapter / "adapter_model.safetensors"), **extra}
    fields = {**json.loads((made.adapter / "adapter_config.json").read_text()), **config}
    adapter = write(folder / "adapter", tensors, fields)
    ours = ask_us(made.base, adapter, folder / "merged")
    family = FAMILIES[wanted.family]
    assert verdict(family, ask_peft(family, made.base, adapter), ours) is None
    return ours


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [(1, 1), (1, 2)])
def test_the_second_factor_of_a_hira_of_a_kernel_has_a_kernel_of_ones(
    kernel: tuple[int, int], tmp_path: Path, corpus: Path
) -> None:
    other = {f"{PREFIX}net.point.hira_B": torch.randn(8, 4, *kernel)}
    ours = judged("hira-plain-conv2d-fp32", {}, other, tmp_path, corpus)
    assert bool(ours.blocked) is (kernel != (1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "config", "is_blocked"),
    [
        ("adalora-plain-llama-fp32", {"rank_pattern": {"model.layers.0.self_attn.q_proj.lora_E": 5}}, True),
        ("adalora-plain-llama-fp32", {"rank_pattern": {"model.layers.0.foo.lora_E": [True] * 4}}, True),
        ("osf-plain-llama-fp32", {"effective_rank": None}, True),
        ("osf-plain-llama-fp32", {"effective_rank": 1.5}, True),
        ("osf-plain-llama-fp32", {"effective_rank": 0.125}, True),  # of 16, for k_proj
        ("osf-plain-llama-fp32", {"rank_pattern": {"k_proj": 0.5}}, True),
        ("osf-plain-llama-fp32", {"effective_rank": None, "rank_pattern": {"proj": 4}}, False),
        ("oft-plain-llama-fp32", {"oft_block_size": 4}, True),
        ("oft-plain-llama-fp32", {"oft_block_size": 9}, False),  # the nearest divisor of 32 and 48 is 8
        ("oft-conv-resnet-fp32", {"r": 3}, True),
        ("fourierft-plain-llama-fp32", {"n_frequency_pattern": {"q_proj": 7}}, True),
        ("fourierft-plain-llama-fp32", _TWENTY, False),
        ("waveft-plain-llama-fp32", _TWENTY, False),
        ("c3a-plain-llama-fp32", {"block_size_pattern": {"q_proj": 8}}, True),
        ("c3a-plain-llama-fp32", _SIXTEEN, False),
        ("frod-plain-llama-fp32", {"sparse_rate": 0.5}, True),
        ("vblora-plain-llama-fp32", {"vector_length": 4}, True),
        ("peanut-deep-llama-fp32", {"r": None}, True),
        ("unilora-plain-bert-fp32", {"proj_seed": -1}, True),
        ("lora-saved-head-llama-fp32", {"lora_alpha": 0}, False),
        ("lora-tokens-llama-fp32", {"lora_alpha": 1e-40}, False),
        ("lora-plain-llama-fp32", {"lora_alpha": 1e-40}, True),
        ("lora-plain-llama-fp32", {"alpha_pattern": {"q_proj": 0}}, False),
        ("fourierft-plain-llama-fp32", {"scaling": 0}, True),
        ("lora-embedding-llama-fp32", {"lora_bias": True}, True),
    ],
)  # fmt: skip
def test_a_config_gives_the_sizes_and_scales_that_peft_derives(
    case: str, config: dict[str, Any], is_blocked: bool, tmp_path: Path, corpus: Path
) -> None:
    ours = judged(case, config, {}, tmp_path, corpus)
    assert bool(ours.blocked) is is_blocked, ours.blocked


@pytest.mark.slow
@pytest.mark.parametrize("parameter", ["in_proj_bias", "in_proj_weight"])
def test_a_parameter_of_an_adapted_attention_is_replaced(
    parameter: str, tmp_path: Path, corpus: Path
) -> None:
    shape = (48,) if parameter.endswith("bias") else (48, 16)
    extra = {f"{PREFIX}net.heads.base_layer.{parameter}": torch.randn(shape)}
    ours = judged("lora-plain-attention-fp32", {}, extra, tmp_path, corpus)
    assert not ours.blocked and any(told.startswith("base_weight_replaced") for told in ours.told)


@pytest.mark.slow
def test_a_frod_with_a_size_of_three_numbers_is_blocked(tmp_path: Path, corpus: Path) -> None:
    extra = {"base_model.frod_s_size.self_attn_q_proj": torch.tensor([32, 32, 32])}
    assert judged("frod-plain-llama-fp32", {}, extra, tmp_path, corpus).blocked


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "resnet"])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_a_boft_with_its_scales_transposed_is_blocked(
    is_transposed: bool, family: str, tmp_path: Path, corpus: Path
) -> None:
    case = f"boft-plain-{family}-fp32"
    (wanted,) = [one for one in cases(dtypes=["fp32"]) if str(one) == case]
    tensors = load_file(make(wanted, corpus).adapter / "adapter_model.safetensors")
    scales = {name: each.T for name, each in tensors.items() if is_transposed and "boft_s" in name}
    assert bool(judged(case, {}, scales, tmp_path, corpus).blocked) is is_transposed


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "resnet"])
def test_a_boft_with_more_butterfly_factors_than_its_config_declares_is_blocked(
    family: str, tmp_path: Path, corpus: Path
) -> None:
    case = f"boft-plain-{family}-fp32"
    (wanted,) = [one for one in cases(dtypes=["fp32"]) if str(one) == case]
    tensors = load_file(make(wanted, corpus).adapter / "adapter_model.safetensors")
    name = next(name for name in tensors if "boft_R" in name)
    more = torch.cat([tensors[name], tensors[name]])
    assert judged(case, {}, {name: more}, tmp_path, corpus).blocked


@pytest.mark.slow
@pytest.mark.parametrize("path", ["C", "D", "E"])
def test_a_glora_with_a_bias_path_longer_than_the_weights_side_is_blocked(
    path: str, tmp_path: Path, corpus: Path
) -> None:
    (wanted,) = [one for one in cases(dtypes=["fp32"]) if str(one) == "glora-plain-llama-fp32"]
    tensors = load_file(make(wanted, corpus).adapter / "adapter_model.safetensors")
    name = next(name for name in tensors if f"glora_{path}." in name)
    longer = torch.cat([tensors[name], tensors[name][:1]])
    assert judged("glora-plain-llama-fp32", {}, {name: longer}, tmp_path, corpus).blocked
