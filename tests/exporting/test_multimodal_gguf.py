"""Adapters of the language model in a multimodal base, exported as GGUF: the real llama.cpp answers with them
as PEFT does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
pytest.importorskip("torch")

import gguf
import torch
import transformers

from adaptry import open_dir
from adaptry.checks.runtimes import parse_runtime
from adaptry.compute.exporting import gguf_file
from adaptry.compute.exporting.export import export
from adaptry.compute.exporting.gguf_names import language_facts
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import AdaptryError

from ..runtimes.cases import SIZES, Base, odds, saved
from ..runtimes.test_llamacpp_families import FIRST, HEADS, NEAR, by_peft, converted_base, trained
from ..runtimes.test_llamacpp_multimodal import converted
from .llamacpp import CONVERTER, log_probabilities

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(CONVERTER is None, reason="no environment for llamacpp: `make environments` makes it"),
]
LLAMACPP = parse_runtime("llama.cpp")
_LANGUAGE = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
_TEXT: dict[str, Any] = {
    name: value for name, value in SIZES.items() if name != "tie_word_embeddings"
} | HEADS
_SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}}
_MARKS = {
    "image_token_id": 319, "video_token_id": 318, "vision_start_token_id": 317, "vision_end_token_id": 316,
}  # fmt: skip
_TOWER = {"intermediate_size": 96, "depth": 2, "num_heads": 4, "patch_size": 14, "spatial_merge_size": 2}


def llava() -> Any:
    vision = transformers.CLIPVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=28,
        patch_size=14,
    )  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=transformers.LlamaConfig(**_TEXT), image_token_index=319,
        tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.LlavaForConditionalGeneration(config)


def qwen2_vl() -> Any:
    tower = {"embed_dim": 64, "hidden_size": 64, "mlp_ratio": 2, **_TOWER}
    config = transformers.Qwen2VLConfig(
        text_config={**_TEXT, **_SECTIONS}, vision_config=tower, tie_word_embeddings=False, **_MARKS
    )
    return transformers.Qwen2VLForConditionalGeneration(config)


def qwen2_5_vl() -> Any:
    tower = {"hidden_size": 64, "out_hidden_size": 64, "fullatt_block_indexes": [1], **_TOWER}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**_TEXT, **_SECTIONS}, vision_config=tower, tie_word_embeddings=False, **_MARKS
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl() -> Any:
    tower = {"hidden_size": 64, "out_hidden_size": 64, "deepstack_visual_indexes": [1], **_TOWER}
    config = transformers.Qwen3VLConfig(
        text_config={**_TEXT, **_SECTIONS}, vision_config=tower, tie_word_embeddings=False, **_MARKS
    )
    return transformers.Qwen3VLForConditionalGeneration(config)


@pytest.mark.parametrize("make", [llava, qwen2_vl, qwen2_5_vl, qwen3_vl])
def test_an_exported_adapter_of_the_language_model_answers_as_in_peft(make: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base: Base = saved(make().eval().float(), tmp_path / "base")
    adapter = trained(base, {"target_modules": _LANGUAGE, "use_rslora": True}, tmp_path / "adapter")
    file = converted_base(base.folder, tmp_path / "base.gguf")
    assert file is not None

    export(ParentAdapter(open_dir(adapter), "it"), tmp_path / "out", base.setting, runtime=LLAMACPP)

    answer = log_probabilities(file, tmp_path / "out" / gguf_file.NAME, FIRST)
    wanted = by_peft(base, adapter)[0]
    assert torch.allclose(answer, wanted, atol=NEAR)
    assert not torch.allclose(odds(base.model)[0], wanted, atol=0.1)


@pytest.mark.parametrize("make", [llava, qwen2_vl, qwen2_5_vl, qwen3_vl])
def test_the_file_equals_that_of_llamacpps_converter(make: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base: Base = saved(make().eval().float(), tmp_path / "base")
    adapter = trained(base, {"target_modules": _LANGUAGE}, tmp_path / "adapter")

    export(ParentAdapter(open_dir(adapter), "it"), tmp_path / "out", base.setting, runtime=LLAMACPP)

    converted(base, adapter, tmp_path / "theirs.gguf")
    theirs, ours = (
        {tensor.name: tensor.data for tensor in gguf.GGUFReader(file).tensors}
        for file in (tmp_path / "theirs.gguf", tmp_path / "out" / gguf_file.NAME)
    )
    assert theirs.keys() == ours.keys()
    assert all((theirs[name] == ours[name]).all() for name in theirs)


def test_an_adapter_that_also_changes_the_tower_is_not_exported_as_gguf(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = saved(llava().eval().float(), tmp_path / "base")
    adapter = trained(base, {"target_modules": ["q_proj", "v_proj"]}, tmp_path / "adapter")

    with pytest.raises(AdaptryError, match="vision_tower"):
        export(
            ParentAdapter(open_dir(adapter), "it"), tmp_path / "out", base.setting, runtime=LLAMACPP,
            format="gguf",
        )  # fmt: skip


def test_numbers_that_a_config_omits_are_those_that_transformers_assumes() -> None:
    """LLaVA 1.5's config names neither the layers nor the heads of its language model."""
    for kind, config in (("llama", transformers.LlamaConfig()), ("mistral", transformers.MistralConfig())):
        facts = language_facts({"model_type": "llava", "text_config": {"model_type": kind}})
        wanted = config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads
        assert (facts["layers"], facts["heads"], facts["kv_heads"]) == wanted
