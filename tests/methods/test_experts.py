"""LoRAs of separate experts, in families whose experts transformers 5 fuses, compared with PEFT."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
from safetensors.torch import load_file

from .experts import EXPERTS, FAMILIES, factors
from .mutations import PREFIX
from .peft_comparison import ask_peft, ask_us, verdict, write

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: family.save(folder / name, torch.float32) for name, family in FAMILIES.items()}


def ends(*names: str, rank: int = 2, inside: str = "") -> Callable[[str], int]:
    return lambda path: rank if path.rpartition(".")[2] in names and inside in path else 0


of_experts = ends(*EXPERTS, inside=".experts.")
of_both = ends(*EXPERTS)


def of_some(path: str) -> int:
    return 0 if ".experts.1." in path else of_experts(path)


def of_rank_three(path: str) -> int:
    return 3 if path.endswith("gate_proj") else of_experts(path)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek"])
@pytest.mark.parametrize(
    ("ranks", "config", "is_blocked"),
    [
        (of_experts, {}, False),
        (of_both, {}, True),  # dense layers and shared experts lose their targets
        (ends("down_proj"), {"target_modules": ["down_proj"]}, True),
        (ends("down_proj", inside="layers.0.mlp.d"), {"target_modules": ["mlp.down_proj"]}, True),
        (ends("down_proj", inside=".experts."), {"target_modules": ["down_proj"]}, False),
        (ends(*EXPERTS[:2], inside=".experts."), {"target_modules": ["gate_proj", "up_proj"]}, True),
        (ends("gate_proj", "down_proj", inside=".experts."), {}, True),
        (of_some, {}, True),
        (of_rank_three, {"rank_pattern": {"gate_proj": 3}}, True),
        (of_experts, {"use_rslora": True}, False),
        (of_experts, {"alpha_pattern": {"gate_proj": 8, "up_proj": 8}}, False),
        (of_experts, {"alpha_pattern": {".*experts.*": 8}}, False),
        (of_experts, {"alpha_pattern": {"down_proj": 8}}, False),
        (of_experts, {"layers_to_transform": [0]}, False),  # does not restrict parameters
        (of_experts, {"exclude_modules": list(EXPERTS)}, False),
        (of_experts, {"target_modules": "all-linear"}, False),
        (of_both, {"target_modules": "all-linear"}, True),
        (of_experts, {"target_modules": r".*experts.*(gate|up|down)_proj"}, False),
        (of_experts, {"target_modules": r".*experts\.\d+\.(gate|up|down)_proj"}, True),
        (ends("o_proj"), {"target_modules": r".*layers\.0\..*o_proj"}, False),  # becomes ["o_proj"]
        (ends("gate_proj", inside="layers.0.mlp.g"), {"target_modules": r".*\.0\.mlp\.gate_proj"}, True),
        (ends("gate"), {"target_modules": ["gate"]}, False),
        (ends("gate"), {"target_modules": ["gate"], "alpha_pattern": {"gate": 8}}, False),  # has no effect
        (ends("gate"), {"target_modules": ["gate"], "alpha_pattern": {"gate.weight": 8}}, False),
        (ends("gate"), {"target_modules": ["gate"], "rank_pattern": {"gate": 4}}, False),
        (ends("gate"), {"target_modules": ["gate"], "rank_pattern": {"gate": 2}, "r": 4}, True),
        (ends("gate"), {"target_modules": ["gate"], "rank_pattern": {"gate.weight": 2}, "r": 4}, False),
        (ends("gate", "o_proj"), {"target_modules": ".*(gate|o_proj)", "alpha_pattern": {"gate": 8}}, False),
        (of_experts, {"target_modules": ["experts.gate_proj", "experts.up_proj", "mlp.down_proj"]}, False),
        (of_experts, {"target_modules": None, "target_parameters": ["gate_up_proj", "down_proj"]}, True),
    ],
)  # fmt: skip
def test_a_lora_of_experts_is_read_as_peft_reads_it(
    ranks: Callable[[str], int],
    config: dict[str, Any],
    is_blocked: bool,
    family: str,
    bases: dict[str, Path],
    tmp_path: Path,
) -> None:
    fields = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "bias": "none"}
    fields |= {"target_modules": list(EXPERTS), **config}
    adapter = write(tmp_path / "adapter", factors(bases[family], ranks), fields)
    ours = ask_us(bases[family], adapter, tmp_path / "merged")
    assert bool(ours.blocked) is is_blocked, ours.blocked
    assert verdict(FAMILIES[family], ask_peft(FAMILIES[family], bases[family], adapter), ours) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("targets", "is_blocked"),
    [(["q_proj"], False), (["q_proj", "w2"], True), (["q_proj", "w1"], True), (None, True)],
)
def test_selecting_half_of_a_fused_parameter_blocks_as_in_peft(
    targets: list[str] | None, is_blocked: bool, bases: dict[str, Path], tmp_path: Path
) -> None:
    family, base = FAMILIES["mixtral"], bases["mixtral"]
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(family.load(base), lora).save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "saved" / "adapter_model.safetensors")
    adapter = write(tmp_path / "adapter", tensors, {**config, "target_modules": targets})
    ours = ask_us(base, adapter, tmp_path / "merged")
    assert bool(ours.blocked) is is_blocked, ours.blocked
    assert verdict(family, ask_peft(family, base, adapter), ours) is None


@pytest.mark.slow
def test_patterns_match_mixtrals_experts_by_their_new_names(bases: dict[str, Path], tmp_path: Path) -> None:
    fields = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "bias": "none"}
    fields |= {"target_modules": ["w1", "w2", "w3"], "use_rslora": True, "alpha_pattern": {"w2": 8}}
    tensors = factors(bases["mixtral"], ends("w1", "w2", "w3"))
    adapter = write(tmp_path / "adapter", tensors, fields)
    ours = ask_us(bases["mixtral"], adapter, tmp_path / "merged")
    family = FAMILIES["mixtral"]
    assert verdict(family, ask_peft(family, bases["mixtral"], adapter), ours) is None


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [{"alpha_pattern": {"gate": 8}}, {"rank_pattern": {r".*\.0\..*gate": 5}}])
def test_patterns_do_not_match_mixtrals_router_which_peft_adapts_as_a_parameter(
    pattern: dict[str, Any], bases: dict[str, Path], tmp_path: Path
) -> None:
    names = ["gate", "w1", "w2", "w3"]
    fields = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "task_type": "CAUSAL_LM", **pattern}
    tensors = factors(bases["mixtral"], ends(*names))
    adapter = write(tmp_path / "adapter", tensors, {**fields, "target_modules": names})
    ours = ask_us(bases["mixtral"], adapter, tmp_path / "merged")
    family = FAMILIES["mixtral"]
    assert not ours.blocked and not ours.refusal
    assert verdict(family, ask_peft(family, bases["mixtral"], adapter), ours) is None


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek", "mixtral"])
@pytest.mark.parametrize(
    ("kept", "is_blocked"),
    [
        (r"experts\.1\.", True),  # it would match first
        (r"experts\.0\.", False),
        (r"experts\.1\..*lora_B", True),
        (r"up_proj|w3", False),
    ],
)
def test_experts_that_get_the_factors_of_others_are_blocked(
    kept: str, is_blocked: bool, family: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    names = ["w1", "w2", "w3"] if family == "mixtral" else list(EXPERTS)
    fields = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "bias": "none"}
    tensors = {
        name if re.search(kept, name) else name.removeprefix(PREFIX): value
        for name, value in factors(bases[family], ends(*names, inside=".experts.")).items()
    }
    adapter = write(tmp_path / "adapter", tensors, {**fields, "target_modules": names})
    theirs = ask_peft(FAMILIES[family], bases[family], adapter)
    ours = ask_us(bases[family], adapter, tmp_path / "merged")
    assert theirs.is_shuffled is is_blocked
    assert verdict(FAMILIES[family], theirs, ours) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "ranks"),
    [
        ({"target_modules": None, "target_parameters": ["gate_up_proj", "down_proj"], "r": 4}, (2, 2, 4)),
        ({"target_modules": list(EXPERTS), "rank_pattern": {".*experts.down_proj": 3}}, (2, 2, 3)),
        ({"target_modules": list(EXPERTS), "rank_pattern": {r".*experts\.0\.down_proj": 5}}, (2, 2, 2)),
        ({"target_modules": list(EXPERTS), "rank_pattern": {"gate_up_proj": 6}}, (4, 2, 2)),
    ],
)
@pytest.mark.parametrize("use_rslora", [False, True])
def test_ranks_of_experts_are_those_of_their_fused_parameter(
    config: dict[str, Any],
    ranks: tuple[int, int, int],
    use_rslora: bool,
    bases: dict[str, Path],
    tmp_path: Path,
) -> None:
    sizes = dict(zip(EXPERTS, ranks, strict=True))
    tensors = factors(
        bases["qwen3_moe"], lambda path: sizes[path.rpartition(".")[2]] if ".experts." in path else 0
    )
    fields = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "bias": "none"}
    adapter = write(tmp_path / "adapter", tensors, {**fields, **config, "use_rslora": use_rslora})
    ours = ask_us(bases["qwen3_moe"], adapter, tmp_path / "merged")
    family = FAMILIES["qwen3_moe"]
    assert not ours.blocked
    assert verdict(family, ask_peft(family, bases["qwen3_moe"], adapter), ours) is None


@pytest.mark.slow
@pytest.mark.parametrize("family", ["deepseek", "mixtral"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("part", ["lora_", r"experts\.0\.", "lora_A", "down_proj|w2", "up_proj|w3"])
def test_experts_of_several_dtypes_are_judged_as_by_peft(
    part: str, dtype: torch.dtype, family: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    names = ["w1", "w2", "w3"] if family == "mixtral" else list(EXPERTS)
    fields = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "bias": "none"}
    tensors = factors(bases[family], ends(*names, inside=".experts."))
    tensors = {name: each.to(dtype) if re.search(part, name) else each for name, each in tensors.items()}
    adapter = write(tmp_path / "adapter", tensors, {**fields, "target_modules": names})
    ours = ask_us(bases[family], adapter, tmp_path / "merged")
    theirs = ask_peft(FAMILIES[family], bases[family], adapter)
    assert verdict(FAMILIES[family], theirs, ours) is None


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek", "mixtral"])
def test_experts_of_a_module_that_the_model_lacks_are_blocked(
    family: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    names = ["w1", "w2", "w3"] if family == "mixtral" else list(EXPERTS)
    fields = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "bias": "none"}
    tensors = factors(bases[family], ends(*names, inside=".experts."))
    tensors = {name.replace(PREFIX, f"{PREFIX}foo.", 1): each for name, each in tensors.items()}
    adapter = write(tmp_path / "adapter", tensors, {**fields, "target_modules": names})
    ours = ask_us(bases[family], adapter, tmp_path / "merged")
    assert ours.blocked
    assert verdict(FAMILIES[family], ask_peft(FAMILIES[family], bases[family], adapter), ours) is None


def test_a_merge_of_completely_saved_experts_is_left_to_peft(bases: dict[str, Path], tmp_path: Path) -> None:
    """They are one parameter in memory, but a tensor for each expert on disk."""
    family = FAMILIES["qwen3_moe"]
    config = peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["experts"], task_type="CAUSAL_LM")
    trained = peft.get_peft_model(family.load(bases["qwen3_moe"]), config)
    trained.save_pretrained(str(tmp_path / "tone"))

    ours = ask_us(bases["qwen3_moe"], tmp_path / "tone", tmp_path / "merged")

    assert ours.is_unsupported
    assert re.search(r"stores in \d+ tensors: merge it with PEFT", ours.refusal)
