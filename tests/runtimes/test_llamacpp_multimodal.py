"""Adapters of a multimodal model in llama.cpp: updates of its language model are applied, and updates of its
tower are left out.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
pytest.importorskip("torch")

import gguf
import torch
import transformers
from safetensors.torch import load_file

from adaptry import open_dir
from adaptry.checks.runtimes import check_runtime, parse_runtime

from ..exporting.llamacpp import CONVERTER, log_probabilities
from .cases import SIZES, Base, odds, saved
from .test_llamacpp_families import FIRST, HEADS, NEAR, by_peft, converted_base, trained

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(CONVERTER is None, reason="no environment for llamacpp: `make environments` makes it"),
]
TEXT: dict[str, Any] = {
    **{name: value for name, value in SIZES.items() if name != "tie_word_embeddings"}, **HEADS,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
}  # fmt: skip
TOWER = {
    "hidden_size": 64, "out_hidden_size": 64, "intermediate_size": 96, "depth": 2, "num_heads": 4,
    "patch_size": 14, "spatial_merge_size": 2, "deepstack_visual_indexes": [1],
}  # fmt: skip
MARKS = {
    "image_token_id": 319, "video_token_id": 318, "vision_start_token_id": 317, "vision_end_token_id": 316,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    torch.manual_seed(0)
    config = transformers.Qwen3VLConfig(
        text_config=TEXT, vision_config=TOWER, tie_word_embeddings=False, **MARKS
    )
    model = transformers.Qwen3VLForConditionalGeneration(config).eval().float()
    return saved(model, tmp_path_factory.mktemp("base"))


def converted(base: Base, adapter: Path, file: Path) -> list[str]:
    """The names in the file that llama.cpp's converter writes."""
    script = [sys.executable, CONVERTER or "", adapter, "--base", base.folder, "--outfile", file]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
    return [tensor.name for tensor in gguf.GGUFReader(file).tensors]


def outcome(base: Base, adapter: Path) -> str:
    return check_runtime(open_dir(adapter), parse_runtime("llama.cpp"), base.setting.record).outcome


def test_an_adapter_of_the_language_model_answers_as_in_peft(base: Base, tmp_path: Path) -> None:
    targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    adapter = trained(base, {"target_modules": targets}, tmp_path / "adapter")
    converted(base, adapter, tmp_path / "adapter.gguf")
    file = converted_base(base.folder, tmp_path / "base.gguf")
    assert file is not None

    answer = log_probabilities(file, tmp_path / "adapter.gguf", FIRST)

    wanted = by_peft(base, adapter)[0]
    assert torch.allclose(answer, wanted, atol=NEAR)
    assert not torch.allclose(odds(base.model)[0], wanted, atol=0.1)
    assert outcome(base, adapter) == "as_trained"


@pytest.mark.parametrize("targets", ["all-linear", r".*visual.*\.(qkv|proj)"], ids=["all linear", "tower"])
def test_llamacpp_leaves_out_what_an_adapter_changes_in_the_tower(
    base: Base, tmp_path: Path, targets: str
) -> None:
    adapter = trained(base, {"target_modules": targets}, tmp_path / "adapter")
    assert any(".visual." in name for name in load_file(adapter / "adapter_model.safetensors"))

    names = converted(base, adapter, tmp_path / "adapter.gguf")

    assert [name for name in names if not name.startswith("blk.")] == []
    assert outcome(base, adapter) == "not_as_trained"
