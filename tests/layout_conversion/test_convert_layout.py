"""Adapters converted between the layouts of transformers 4 and 5: the same update under other names, compared
with PEFT.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.checks.runtimes import parse_runtime
from adaptry.compute.exporting.export import export
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.layout_conversion.convert import convert_layout
from adaptry.compute.layout_conversion.module_names import LayoutVersion
from adaptry.compute.lazy_adapters.folder_writer import write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.errors import CheckFailed

_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")


def mixtral() -> torch.nn.Module:
    return MixtralForCausalLM(MixtralConfig(**_SMALL, num_local_experts=4))


def qwen() -> torch.nn.Module:
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**_SMALL, moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2, head_dim=8)
    )


def llava() -> torch.nn.Module:
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        image_size=16,
        patch_size=8,
    )
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=LlamaConfig(**_SMALL)))


def saved(model: torch.nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)  # type: ignore[operator]  # transformers' own
    return folder


def adapted(model: torch.nn.Module, config: Any, folder: Path) -> Adapter:
    """A trained-looking adapter of `model`, saved by PEFT."""
    torch.manual_seed(1)
    tuned = get_peft_model(copy.deepcopy(model), config)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, 0, 0.05)
    tuned.save_pretrained(str(folder))
    return open_dir(folder)


def moved(adapter: Adapter, base: Path, to: LayoutVersion, folder: Path) -> Adapter:
    write_adapter(
        convert_layout(ParentAdapter(adapter, "it"), fingerprint(open_checkpoint(base)), to), folder
    )
    return open_dir(folder)


def merged_by_peft(model: torch.nn.Module, folder: Path) -> dict[str, torch.Tensor]:
    merged: Any = PeftModel.from_pretrained(copy.deepcopy(model), str(folder)).merge_and_unload()
    return dict(merged.state_dict())


def merged_here(base: Path, adapter: Adapter, folder: Path) -> bytes:
    merge(
        MergeRecipe(base=str(base), inputs=(RecipeInput(source="it"),)),
        open_checkpoint(base),
        [MergeSource(WeightedAdapter(adapter, 1.0, "it"))],
        folder,
    )
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.filterwarnings(
    "ignore:The following .*_pattern keys:RuntimeWarning"
)  # PEFT's own, of its own patterns
@pytest.mark.parametrize("make", [mixtral, qwen])
@pytest.mark.parametrize("rslora", [False, True])
def test_fused_experts_are_taken_apart_and_put_together_without_changing_a_bit(
    tmp_path: Path, make: Any, rslora: bool
) -> None:
    torch.manual_seed(0)
    model = make()
    base = saved(model, tmp_path / "base")
    config = LoraConfig(
        r=4, lora_alpha=12, use_rslora=rslora, target_modules=["q_proj"], target_parameters=list(EXPERTS)
    )
    fused = adapted(model, config, tmp_path / "fused")

    each = moved(fused, base, "transformers4", tmp_path / "each")
    again = moved(each, base, "transformers5", tmp_path / "again")

    assert "experts_fused" in fused.spec.layouts and "experts_fused" in again.spec.layouts
    assert "experts_each" in each.spec.layouts
    by_peft = merged_by_peft(model, tmp_path / "fused")
    for folder in ("each", "again"):
        other = merged_by_peft(model, tmp_path / folder)
        if not rslora:
            assert all(torch.equal(other[name], weight) for name, weight in by_peft.items())
        assert all(torch.allclose(other[name], weight, atol=1e-7) for name, weight in by_peft.items())
    ours = [merged_here(base, one, tmp_path / f"m{place}") for place, one in enumerate((fused, each, again))]
    assert rslora or ours[0] == ours[1] == ours[2]


def test_experts_that_are_adapted_in_part_are_zeros_elsewhere(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mixtral()
    base = saved(model, tmp_path / "base")
    config = LoraConfig(r=2, lora_alpha=2, target_modules=[], target_parameters=["mlp.experts.gate_up_proj"])
    each = moved(adapted(model, config, tmp_path / "fused"), base, "transformers4", tmp_path / "each")
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    _keep_only(each, lonely, ".0.block_sparse_moe.experts.2.w3.")

    again = moved(open_dir(lonely), base, "transformers5", tmp_path / "again")

    merged, plain = merged_by_peft(model, tmp_path / "again"), model.state_dict()
    changed = [name for name, weight in merged.items() if not torch.equal(weight, plain[name])]
    assert changed == ["model.layers.0.mlp.experts.gate_up_proj"]
    difference = merged[changed[0]] - plain[changed[0]]
    assert difference[2, 48:].abs().max() > 0
    difference[2, 48:] = 0
    assert not difference.any()
    assert again.spec.modules[0].parameter == "gate_up_proj"


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, target_modules=["q_proj"], use_dora=True),
        IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    ],
    ids=["dora", "ia3"],
)
def test_names_of_a_multimodal_model_are_converted_in_both_directions(tmp_path: Path, config: Any) -> None:
    torch.manual_seed(0)
    model = llava()
    base = saved(model, tmp_path / "base")
    config.target_modules = rf".*language_model.*\.({'|'.join(sorted(config.target_modules))})"
    if isinstance(config, IA3Config):
        config.feedforward_modules = r".*language_model.*\.down_proj"
    new = adapted(model, config, tmp_path / "new")

    old = moved(new, base, "transformers4", tmp_path / "old")
    again = moved(old, base, "transformers5", tmp_path / "again")

    assert new.spec.layouts == again.spec.layouts == ("names_of_transformers_5",)
    assert old.spec.layouts == ("names_of_transformers_4",)
    assert all(module.path.startswith("language_model.model.layers.") for module in old.spec.modules)
    assert new.weights_digest() == again.weights_digest()
    by_peft, other = (merged_by_peft(model, tmp_path / name) for name in ("new", "again"))
    assert all(torch.equal(other[name], weight) for name, weight in by_peft.items())


_QUERY = "layers.0.self_attn.q_proj"
_IN_MODEL, _BEFORE = f"model.language_model.{_QUERY}", f"language_model.model.{_QUERY}"


@pytest.mark.parametrize(
    ("fields", "old_fields"),
    [
        ({"target_modules": [_IN_MODEL, "down_proj"]}, {"target_modules": [_BEFORE, "down_proj"]}),
        ({"alpha_pattern": {_IN_MODEL: 64}}, {"alpha_pattern": {_BEFORE: 64}}),
        ({"rank_pattern": {_IN_MODEL: 3}}, {"rank_pattern": {_BEFORE: 3}}),
    ],
    ids=["targets", "alphas", "ranks"],
)
def test_a_config_with_old_names_blocks_and_is_converted(
    fields: dict[str, Any], old_fields: dict[str, Any], tmp_path: Path
) -> None:
    """PEFT translates the names of tensors, but compares the config with the names in the model."""
    torch.manual_seed(0)
    model = llava()
    base = saved(model, tmp_path / "base")
    config: dict[str, Any] = {"r": 2, "target_modules": ["q_proj"], **fields}
    adapted(model, LoraConfig(**config), tmp_path / "new")
    old = _with_old_names(tmp_path / "new", tmp_path / "old", old_fields)

    (found,) = check(old, fingerprint(open_checkpoint(base)), "base").findings
    moved(old, base, "transformers5", tmp_path / "again")

    assert found.code == "names_not_loaded"
    assert "the model has model.language_model.layers.N.self_attn.q_proj, " in found.reason
    by_peft, again = (merged_by_peft(model, tmp_path / name) for name in ("new", "again"))
    assert all(torch.equal(again[name], weight) for name, weight in by_peft.items())


def test_old_names_of_tensors_alone_give_no_finding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = llava()
    base = saved(model, tmp_path / "base")
    adapted(model, LoraConfig(r=2, target_modules=["q_proj"]), tmp_path / "new")
    old = _with_old_names(tmp_path / "new", tmp_path / "old", {})

    assert check(old, fingerprint(open_checkpoint(base)), "base").findings == ()
    by_peft, other = (merged_by_peft(model, tmp_path / name) for name in ("new", "old"))
    assert all(torch.equal(other[name], weight) for name, weight in by_peft.items())


_SPELLINGS = {
    "model.language_model.": "language_model.model.",
    "model.vision_tower.": "vision_tower.vision_model.",
}


def _with_old_names(
    source: Path, folder: Path, fields: dict[str, Any], spellings: dict[str, str] = _SPELLINGS
) -> Adapter:
    """The adapter as transformers 4 named its modules, with these fields of the config."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **fields}))
    tensors = load_file(folder / "adapter_model.safetensors")
    for new, old in spellings.items():
        tensors = {name.replace(new, old, 1): tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return open_dir(folder)


def test_an_export_for_peft_gives_modules_that_were_renamed_their_new_names(tmp_path: Path) -> None:
    """A ViT's modules have other names in transformers 5, which still writes the old ones."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=8))
    base = saved(model, tmp_path / "base")
    adapted(model, LoraConfig(r=2, target_modules=["q_proj"]), tmp_path / "new")
    names = {"vit.layers.": "vit.encoder.layer.", "attention.q_proj": "attention.attention.query"}
    old = _with_old_names(tmp_path / "new", tmp_path / "old", {"target_modules": ["query"]}, names)
    record = fingerprint(open_checkpoint(base))

    (found,) = check(old, record, "base").findings
    setting = ExportOptions(record, lambda: open_checkpoint(base))
    export(ParentAdapter(old, "it"), tmp_path / "again", setting, runtime=parse_runtime("peft"))

    assert "the model has vit.layers.N.attention.q_proj, but no vit.encoder.layer.N." in found.reason
    by_peft, again = (merged_by_peft(model, tmp_path / name) for name in ("new", "again"))
    assert all(torch.equal(again[name], weight) for name, weight in by_peft.items())


def test_names_without_prefix_are_converted_as_peft_reads_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mixtral()
    base = saved(model, tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"])
    adapter = adapted(model, config, tmp_path / "whole")
    expected = moved(adapter, base, "transformers4", tmp_path / "expected")
    bare = shutil.copytree(tmp_path / "whole", tmp_path / "bare") / "adapter_model.safetensors"
    tensors = {name.removeprefix("base_model.model."): each for name, each in load_file(bare).items()}
    save_file(tensors, bare)

    found = moved(open_dir(bare.parent), base, "transformers4", tmp_path / "found")

    assert found.weights_digest() == expected.weights_digest()


def test_an_adapter_already_in_the_layout_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mixtral()
    base = saved(model, tmp_path / "base")
    adapter = adapted(model, LoraConfig(r=2, target_modules=["q_proj"]), tmp_path / "plain")

    for layout in ("transformers4", "transformers5"):
        with pytest.raises(CheckFailed, match="already"):
            moved(adapter, base, layout, tmp_path / "out")
    assert adapter.spec.layouts == ()


def test_a_base_without_its_modules_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mixtral()
    base = saved(qwen(), tmp_path / "base")
    config = LoraConfig(r=2, target_modules=[], target_parameters=list(EXPERTS))
    with pytest.raises(CheckFailed, match="shape_mismatch"):
        moved(adapted(model, config, tmp_path / "fused"), base, "transformers4", tmp_path / "out")


def test_features_without_a_fused_form_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mixtral()
    base = saved(model, tmp_path / "base")
    config = LoraConfig(r=2, lora_alpha=2, target_modules=[], target_parameters=["mlp.experts.gate_up_proj"])
    each = moved(adapted(model, config, tmp_path / "fused"), base, "transformers4", tmp_path / "each")
    dora = tmp_path / "dora"
    dora.mkdir()
    _with_magnitudes(each, dora)
    with pytest.raises(CheckFailed, match="use_dora is set, which PEFT does not support for parameters"):
        moved(open_dir(dora), base, "transformers5", tmp_path / "out")


def _keep_only(adapter: Adapter, folder: Path, part: str) -> None:
    source = adapter.content.folder  # type: ignore[attr-defined]  # a folder's content
    tensors = {
        name: tensor
        for name, tensor in load_file(source / "adapter_model.safetensors").items()
        if part in name
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())


def _with_magnitudes(adapter: Adapter, folder: Path) -> None:
    source = adapter.content.folder  # type: ignore[attr-defined]  # a folder's content
    tensors = load_file(source / "adapter_model.safetensors")
    for name in [name for name in tensors if name.endswith("lora_B.weight")]:
        tensors[name.replace("lora_B.weight", "lora_magnitude_vector")] = torch.ones(tensors[name].shape[0])
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))


def test_a_version_is_rewritten_as_a_version_that_names_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    from click.testing import CliRunner

    from adaptry_cli.main import main

    def run(*words: str) -> str:
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
        return result.stdout

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = mixtral()
    saved(model, tmp_path / "base")
    config = LoraConfig(r=2, target_modules=[], target_parameters=list(EXPERTS))
    adapted(model, config, tmp_path / "fused")
    run("base", "add", "./base", "--name", "org/moe")
    digest = run("push", "./fused", "acme/moe", "--base", "org/moe").split()[1]

    run("convert", "acme/moe", "--layout", "transformers4", "-o", "acme/moe-each")

    shown = json.loads(run("show", "acme/moe-each", "--json"))
    assert shown["manifest"]["parents"] == [digest]
    assert shown["manifest"]["recipe"]["operation"] == "migrate"
    assert shown["spec"]["layouts"] == ["experts_each", "names_of_transformers_4"]
    assert shown["version"]["base_status"] == "verified"
    assert "separate experts" in run("inspect", "acme/moe-each")
