"""An adapter repaired for a limited engine gives the same logits in PEFT as the original."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks.runtimes import check_runtime, parse_runtime
from adaptry.compute.exporting.export import export
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.testing.samples import Tensors, random_tensor, tiny_base, tiny_lora, write_safetensors

pytest.importorskip("peft", reason="PEFT is the reference here: pip install 'adaptry[demo]'")

Logits = Callable[[Path], Any]
LAYER = "base_model.model.model.layers.0"
ONE_OF_DOWN: Tensors = {
    f"{LAYER}.mlp.down_proj.lora_A.weight": random_tensor((4, 32), 10),
    f"{LAYER}.mlp.down_proj.lora_B.weight": random_tensor((16, 4), 11),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def logits(base: Path) -> Logits:
    """The logits with a folder's adapter in PEFT, or of a checkpoint in transformers."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def found(folder: Path) -> Any:
        if (folder / "adapter_config.json").is_file():
            loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
            model = PeftModel.from_pretrained(loaded, str(folder)).eval()
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            return model(torch.arange(12)[None]).logits

    return found


def renamed(adapter: Path, folder: Path, old: str, new: str) -> Path:
    """The same adapter under other names."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    view = open_dir(adapter)
    write_safetensors(
        folder / "adapter_model.safetensors",
        {
            name.replace(old, new): (info.dtype, info.shape, view.tensor_bytes(name))
            for name, info in view.tensors.items()
        },
    )
    return folder


HEAD: Tensors = {"base_model.model.lm_head.weight": random_tensor((32, 16), 7)}
ROUGH = {
    "rsLoRA": ("sglang", {"config": {"use_rslora": True}}),
    "rsLoRA, LMDeploy": ("lmdeploy", {"config": {"use_rslora": True}}),
    "alpha_pattern, SGLang": ("sglang", {"config": {"alpha_pattern": {"q_proj": 64}}}),
    "alpha_pattern, LoRAX": ("lorax", {"config": {"alpha_pattern": {"q_proj": 64}}}),
    "alpha_pattern, TGI": ("tgi", {"config": {"alpha_pattern": {"q_proj": 64}}}),
    "alpha_pattern, TensorRT-LLM": ("tensorrt-llm", {"config": {"alpha_pattern": {"q_proj": 64}}}),
    "alpha_pattern, LMDeploy": ("lmdeploy", {"config": {"alpha_pattern": {"q_proj": 64}}}),
    "a layer that lacks a module, LoRAX": (
        "lorax", {"extra": ONE_OF_DOWN, "config": {"target_modules": ["q_proj", "v_proj", "down_proj"]}}),
    "a layer that lacks a module, TGI": (
        "tgi", {"extra": ONE_OF_DOWN, "config": {"target_modules": ["q_proj", "v_proj", "down_proj"]}}),
    "a head, SGLang": ("sglang", {"extra": HEAD, "config": {"modules_to_save": ["lm_head"]}}),
    "a head, LoRAX": ("lorax", {"extra": HEAD, "config": {"modules_to_save": ["lm_head"]}}),
    "a head, TGI": ("tgi", {"extra": HEAD, "config": {"modules_to_save": ["lm_head"]}}),
}  # fmt: skip


@pytest.mark.parametrize("case", ROUGH)
def test_an_adapter_that_an_engine_would_alter_is_repaired_to_an_equal_one(
    base: Path, logits: Logits, tmp_path: Path, case: str
) -> None:
    engine, options = ROUGH[case]
    setting = ExportOptions(fingerprint(open_checkpoint(base)), lambda: open_checkpoint(base))
    adapter = tiny_lora(tmp_path / "adapter", **options)  # type: ignore[arg-type]
    assert check_runtime(open_dir(adapter), parse_runtime(engine), setting.record).outcome == "not_as_trained"

    made = export(
        ParentAdapter(open_dir(adapter), "it"), tmp_path / "out", setting, runtime=parse_runtime(engine)
    )

    torch.testing.assert_close(logits(tmp_path / "out"), logits(adapter), rtol=0, atol=1e-5)
    if made.format == "peft":
        assert (
            check_runtime(open_dir(tmp_path / "out"), parse_runtime(engine), setting.record).outcome
            == "as_trained"
        )
        assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["use_rslora"] is False


OTHER = ("model.model.layers", "model.wrapped.model.layers")
TWICE = ("base_model.model.", "base_model.model.base_model.model.")


@pytest.mark.parametrize(
    ("engine", "old", "new"),
    [("vllm", *OTHER), ("lorax", *OTHER), ("peft", *TWICE), ("lorax", *TWICE)],
    ids=["vllm, another model's", "lorax, another model's", "peft, twice", "lorax, twice"],
)
def test_names_that_an_engine_would_drop_are_repaired_to_the_same_adapter(
    base: Path, logits: Logits, tmp_path: Path, engine: str, old: str, new: str
) -> None:
    setting = ExportOptions(fingerprint(open_checkpoint(base)), lambda: open_checkpoint(base))
    right = tiny_lora(tmp_path / "right")
    wrong = renamed(right, tmp_path / "wrong", old, new)
    assert check_runtime(open_dir(wrong), parse_runtime(engine), setting.record).outcome != "as_trained"

    export(ParentAdapter(open_dir(wrong), "it"), tmp_path / "out", setting, runtime=parse_runtime(engine))

    torch.testing.assert_close(logits(tmp_path / "out"), logits(right), rtol=0, atol=0)


@pytest.mark.parametrize("engine", ["vllm", "lorax", "sglang"])
def test_an_update_of_a_head_that_the_base_does_not_store_keeps_its_effect(
    tmp_path: Path, engine: str
) -> None:
    """An engine without such a head gets a checkpoint: the embedding is a different module."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    def answers(model: Any) -> Any:
        with torch.no_grad():
            return model.eval()(torch.arange(12)[None]).logits

    folder = tiny_base(tmp_path / "base", tied=True)
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    trained = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    trained.save_pretrained(str(tmp_path / "tone"))
    setting = ExportOptions(fingerprint(open_checkpoint(folder)), lambda: open_checkpoint(folder))

    made = export(
        ParentAdapter(open_dir(tmp_path / "tone"), "it"),
        tmp_path / "out",
        setting,
        runtime=parse_runtime(engine),
    )

    is_adapter = engine in ("sglang", "vllm")
    assert made.format == ("peft" if is_adapter else "checkpoint")
    loaded = AutoModelForCausalLM.from_pretrained(folder if is_adapter else tmp_path / "out")
    found = PeftModel.from_pretrained(loaded, str(tmp_path / "out")) if is_adapter else loaded
    torch.testing.assert_close(answers(found), answers(trained), rtol=0, atol=1e-5)
