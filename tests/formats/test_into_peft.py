"""Files of other tools converted to PEFT's layout: PEFT's merge equals the tool's formula."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from adaptry import open_dir
from adaptry.testing.samples import tiny_base

from .into_peft import Weights, assert_same, converted, merged, run
from .other_layouts import adapterhub_lora, bottleneck, diffusers, kohya, mlx, unet, written


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "base")


def by_peft(base: Path, adapter: Path) -> Weights:
    """The weights of the base after PEFT has merged the adapter."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    found: dict[str, Any] = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().state_dict()
    return {name: found[name] for name in load_file(base / "model.safetensors")}


def as_mlx_fuses(base: Path, adapter: Path) -> Weights:
    """`LoRALinear.fuse` of mlx-lm: W + (scale · lora_bᵀ) · lora_aᵀ."""
    weights, factors = load_file(base / "model.safetensors"), load_file(adapter / "adapters.safetensors")
    scale = json.loads((adapter / "adapter_config.json").read_text())["lora_parameters"]["scale"]
    for name in factors:
        if name.endswith(".lora_a"):
            path = name.removesuffix(".lora_a")
            weights[f"{path}.weight"] += scale * factors[f"{path}.lora_b"].T @ factors[name].T
    return weights


@pytest.mark.parametrize("scale", [20.0, 0.1, 1 / 3])
def test_mlxs_scale_becomes_pefts(scale: float, base: Path, tmp_path: Path) -> None:
    source = mlx(tmp_path / "out", rank=6, lora_parameters={"rank": 6, "scale": scale, "dropout": 0.0})
    folder = converted(source, tmp_path / "peft")
    (found,) = {module.scale for module in open_dir(folder).spec.modules}
    assert found == pytest.approx(scale, rel=3e-16, abs=0)
    weights = load_file(base / "model.safetensors")
    assert_same(by_peft(base, folder), as_mlx_fuses(base, source), weights)
    assert_same(merged(source, base, tmp_path / "merged"), as_mlx_fuses(base, source), weights)


def test_the_factors_keep_every_bit(tmp_path: Path) -> None:
    source = mlx(tmp_path / "out")
    made = load_file(converted(source, tmp_path / "peft") / "adapter_model.safetensors")
    for name, factor in load_file(source / "adapters.safetensors").items():
        role = {"lora_a": "lora_A", "lora_b": "lora_B"}[name.rpartition(".")[2]]
        assert torch.equal(made[f"base_model.model.{name.rpartition('.')[0]}.{role}.weight"].T, factor)


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    source = mlx(tmp_path / "out")
    one, two = converted(source, tmp_path / "one"), converted(source, tmp_path / "two")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_lora_of_another_tool_is_combined_in_pefts_layout(base: Path, tmp_path: Path) -> None:
    source = mlx(tmp_path / "out", lora_parameters={"rank": 4, "scale": 2.0, "dropout": 0.0})
    told = run("combine", f"{source}=0.5", source, "--base", base, "-o", tmp_path / "combined")
    assert told.exit_code == 0, told.output
    wanted = converted(source, tmp_path / "peft")
    told = run("combine", f"{wanted}=0.5", wanted, "-o", tmp_path / "wanted")
    assert told.exit_code == 0, told.output
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("combined", "wanted"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_base_that_lacks_its_modules_is_refused(tmp_path: Path) -> None:
    other = tiny_base(tmp_path / "other", layers=1)
    told = run("convert", mlx(tmp_path / "out"), "--base", other, "-o", tmp_path / "peft")
    assert told.exit_code != 0
    assert "it adapts layer 1, but the base has 1 layer" in told.output
    assert not (tmp_path / "peft").exists()


def test_without_a_base_the_output_states_that_no_names_were_compared(base: Path, tmp_path: Path) -> None:
    source = mlx(tmp_path / "out")
    assert "without a base" in run("convert", source, "-o", tmp_path / "one").output
    told = run("convert", source, "-o", tmp_path / "two", "--base", base)
    assert "without a base" not in told.output


def test_changing_the_rank_is_a_separate_step(tmp_path: Path) -> None:
    told = run("convert", mlx(tmp_path / "out"), "--rank", "2", "-o", tmp_path / "peft")
    assert told.exit_code == 2
    assert "convert the result" in told.output


def test_features_unknown_to_peft_are_refused_with_a_remedy(base: Path, tmp_path: Path) -> None:
    source = bottleneck(tmp_path / "out")
    for words in (
        ("convert", source, "-o", tmp_path / "made"),
        ("merge", source, "--base", base, "-o", tmp_path / "made"),
    ):
        told = run(*words)
        assert told.exit_code != 0
        assert "load it with model.load_adapter" in told.output
        assert not (tmp_path / "made").exists()


def as_factors_say(base: Path, changes: dict[str, tuple[float, torch.Tensor, torch.Tensor]]) -> Weights:
    """W + scale · up · down of each module; kernels are flattened."""
    (file,) = base.glob("*.safetensors")
    weights = load_file(file)
    for path, (scale, up, down) in changes.items():
        weights[f"{path}.weight"] += scale * (up.flatten(1) @ down.flatten(1)).view_as(
            weights[f"{path}.weight"]
        )
    return weights


LINEAR, CONV = "down_blocks.0.attentions.0.to_q", "down_blocks.0.resnets.0.conv1"


def test_kohyas_flat_names_are_resolved_by_the_base(tmp_path: Path) -> None:
    source, base = kohya(tmp_path / "out", alpha=2.0), unet(tmp_path / "unet")
    factors = load_file(source / "my_style.safetensors")
    changes = {
        path: (
            alpha / 4,
            factors[f"lora_unet_{flat}.lora_up.weight"],
            factors[f"lora_unet_{flat}.lora_down.weight"],
        )
        for path, alpha in ((LINEAR, 2.0), (CONV, 4.0))
        if (flat := path.replace(".", "_"))
    }
    weights = load_file(base / "diffusion_pytorch_model.safetensors")
    assert_same(merged(source, base, tmp_path / "merged"), as_factors_say(base, changes), weights)
    adapter = open_dir(converted(source, tmp_path / "peft", "--base", base))
    assert {module.path: module.scale for module in adapter.spec.modules} == {LINEAR: 0.5, CONV: 1.0}


@pytest.mark.parametrize(
    ("adapter", "model"),
    [(mlx, tiny_base), pytest.param(kohya, unet, marks=pytest.mark.slow)],
    ids=["mlx", "kohya"],
)
def test_a_converted_version_is_bound_to_the_given_base(
    adapter: Callable[[Path], Path], model: Callable[[Path], Path], tmp_path: Path
) -> None:
    source, base = adapter(tmp_path / "out"), model(tmp_path / "base")
    registry = ("--registry", tmp_path / "registry")
    assert run("base", "add", base, "--name", "acme/own", *registry).exit_code == 0

    made = run("convert", source, "--base", base, "-o", "acme/tone", *registry)
    shown = json.loads(run("show", "acme/tone", "--json", *registry).stdout)

    assert made.exit_code == 0, made.output
    assert shown["version"]["base_status"] == "verified"


def test_a_gguf_beside_another_adapter_is_not_used_instead(tmp_path: Path) -> None:
    source, base = kohya(tmp_path / "out"), unet(tmp_path / "unet")
    (source / "model.gguf").write_bytes(b"GGUF")
    assert run("check", source, "--base", base).exit_code == 0


def test_a_merge_of_a_file_without_a_config_is_recorded_and_verified(tmp_path: Path) -> None:
    source, base = kohya(tmp_path / "out"), unet(tmp_path / "unet")
    merged(source, base, tmp_path / "merged")
    (entry,) = json.loads((tmp_path / "merged" / "adaptry_merge.json").read_text())["inputs"]
    assert entry["source"] == str(source)
    assert entry["weights"] == str(open_dir(source).weights_digest())
    assert entry["config"] is None
    told = run("verify-merge", tmp_path / "merged")
    assert told.exit_code == 0, told.output


def test_kohyas_file_without_a_base_names_the_missing_option(tmp_path: Path) -> None:
    told = run("convert", kohya(tmp_path / "out"), "-o", tmp_path / "peft")
    assert told.exit_code == 1
    assert "only with the base's names" in " ".join(told.output.split())


def test_kohyas_file_for_another_part_is_refused_by_name(tmp_path: Path) -> None:
    base = unet(tmp_path / "unet", width=16)
    told = run("merge", kohya(tmp_path / "out"), "--base", base, "-o", tmp_path / "merged")
    assert told.exit_code == 1
    assert "is for a different model than this base" in told.output


def test_a_part_of_a_diffusers_file_is_taken_by_its_name(tmp_path: Path) -> None:
    source = diffusers(tmp_path / "out")
    told = run("convert", source, "-o", tmp_path / "peft")
    assert told.exit_code == 1
    assert "each a separate model" in told.output
    adapter = open_dir(converted(source, tmp_path / "peft", "--part", "unet"))
    (module,) = adapter.spec.modules
    assert module.path == "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    told = run("convert", source, "-o", tmp_path / "other", "--part", "vae")
    assert "has no part vae, only" in told.output
    told = run("convert", mlx(tmp_path / "mlx"), "-o", tmp_path / "other", "--part", "unet")
    assert "is for one model, and has no parts" in told.output


def test_adapterhubs_lora_is_pefts_under_the_same_names(base: Path, tmp_path: Path) -> None:
    source = adapterhub_lora(tmp_path / "out", alpha=6)
    factors = load_file(source / "adapter.safetensors")
    at = "model.layers.{}.self_attn.q_proj"
    changes = {
        at.format(layer): (
            1.5,
            factors[f"{at.format(layer)}.loras.tone.lora_B"],
            factors[f"{at.format(layer)}.loras.tone.lora_A"],
        )
        for layer in range(2)
    }
    weights = load_file(base / "model.safetensors")
    wanted = as_factors_say(base, changes)
    assert_same(merged(source, base, tmp_path / "merged"), wanted, weights)
    assert_same(by_peft(base, converted(source, tmp_path / "peft")), wanted, weights)


def test_a_gated_lora_of_adapterhub_is_refused(base: Path, tmp_path: Path) -> None:
    source = adapterhub_lora(tmp_path / "out", use_gating=True)
    told = run("merge", source, "--base", base, "-o", tmp_path / "merged")
    assert told.exit_code == 2
    assert "is gated" in told.output


def test_the_original_names_of_sdxl_are_checked_like_others(tmp_path: Path) -> None:
    base, factors = unet(tmp_path / "unet"), {}
    for original, kernel in (("input_blocks_1_0_in_layers_2", (3, 3)), ("input_blocks_1_1_to_q", ())):
        factors[f"lora_unet_{original}.lora_down.weight"] = (4, 8, *kernel)
        factors[f"lora_unet_{original}.lora_up.weight"] = (8, 4, *(1 for _ in kernel))
    alphas = {f"{name.partition('.')[0]}.alpha": 4.0 for name in factors}
    source = written(tmp_path / "out", "style.safetensors", factors, None, {"ss_network_dim": "4"}, alphas)
    told = run("check", source, "--base", base)
    assert told.exit_code == 0, told.output
    assert "no findings" in told.output
    told = run("check", source, "--base", unet(tmp_path / "other", width=16))
    assert told.exit_code == 1
    assert "shape_mismatch" in told.output


def test_a_file_of_a_pipeline_is_checked_against_one_part(tmp_path: Path) -> None:
    source, base = kohya(tmp_path / "out"), unet(tmp_path / "unet")
    assert run("check", source, "--base", base).exit_code == 0
    told = run("check", source, "--base", unet(tmp_path / "other", width=16))
    assert told.exit_code == 1
    assert "shape_mismatch" in told.output
