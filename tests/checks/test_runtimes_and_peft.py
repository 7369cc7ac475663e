"""Verdicts about runtimes compared with PEFT: which scale was trained, and what a runtime drops."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.checks.runtimes import check_runtime, parse_runtime
from adaptry.testing.samples import random_tensor, tiny_base, tiny_lora

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


def loaded(base: Path, adapter: Path) -> Any:
    """The model of PEFT. (`Any`: PEFT has no types.)"""
    return peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), adapter)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "base")


@pytest.mark.parametrize(
    ("config", "engine", "served"),
    [
        ({"use_rslora": True}, "sglang", 8 / 16),
        ({"use_rslora": True}, "llama.cpp", 8 / 16),
        ({"use_rslora": True}, "lmdeploy", 8 / 16),
        ({"alpha_pattern": {"q_proj": 40}}, "tgi", 8 / 16),
        ({"alpha_pattern": {"q_proj": 40}, "use_rslora": True}, "tensorrt-llm", 8 / 4),
    ],
)
def test_the_factor_by_which_an_engine_is_wrong_is_pefts_scale_over_its_own(
    tmp_path: Path, base: Path, config: dict[str, Any], engine: str, served: float
) -> None:
    folder = tiny_lora(tmp_path / "lora", rank=16, config=config)
    layer = loaded(base, folder).base_model.model.model.layers[0].self_attn.q_proj

    (finding,) = check_runtime(open_dir(folder), parse_runtime(engine)).findings

    factor = re.search(r"([\d.]+) times too weak", finding.reason)
    assert factor is not None
    assert float(factor[1]) == pytest.approx(layer.scaling["default"] / served, rel=5e-3)


def test_peft_drops_the_tensors_that_the_finding_names(tmp_path: Path, base: Path) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_C.weight"
    folder = tiny_lora(tmp_path / "lora", extra={name: random_tensor((4, 4), 14)})

    assert check_runtime(open_dir(folder), parse_runtime("peft")).outcome == "not_as_trained"
    state = peft.get_peft_model_state_dict(loaded(base, folder))
    assert not any("lora_C" in key for key in state)
    assert any("lora_A" in key for key in state)
