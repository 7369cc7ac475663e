"""Folders of other tools: recognised, described, pushed and pulled unchanged, and never merged as if they
were PEFT's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from adaptry import open_dir
from adaptry.adapters.adapter import Adapter
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.checks.weights import check_weights
from adaptry.core.errors import InvalidConfig, InvalidPath, InvalidWeights, NotFound, Unsupported
from adaptry.operations.transfer import pull, push
from adaptry.registry.interface import Registry
from adaptry.testing.samples import tiny_base

from .other_layouts import adapterhub_lora, bottleneck, diffusers, kohya, mlx, torchtune, written

TOOLS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "adapterhub": (bottleneck, "bottleneck"),
    "mlx": (mlx, "lora"),
    "diffusers": (diffusers, "lora"),
    "kohya": (kohya, "lora"),
    "torchtune": (torchtune, "lora"),
}


def codes(adapter: Adapter, base: Path | None = None) -> set[str]:
    record = fingerprint(open_checkpoint(base)) if base else None
    return {found.code for found in check(adapter, record).findings}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_folder_of_each_tool_is_recognised_and_all_its_tensors_are_described(
    tool: str, tmp_path: Path
) -> None:
    make, method = TOOLS[tool]
    adapter = open_dir(make(tmp_path / "out"))
    assert adapter.format.name == tool
    assert adapter.spec.method == method
    assert adapter.spec.rank == 4
    assert tool in adapter.spec.traits
    assert not adapter.spec.unclaimed


@pytest.mark.parametrize("tool", TOOLS)
def test_a_foreign_adapter_is_pushed_found_and_pulled_with_its_file_names(
    tool: str, tmp_path: Path, registry: Registry
) -> None:
    make, method = TOOLS[tool]
    source = make(tmp_path / "out")
    (source / "training_args.bin").write_bytes(b"\x80\x02.")
    adapter = open_dir(source)
    assert "pickle" in adapter.left_out["training_args.bin"]
    push(registry, adapter, "acme/tone")
    (found,) = registry.versions.search(f"method:{method}").items
    assert found.rank == 4
    pull(registry, "acme/tone", tmp_path / "pulled")
    there = {path.name: path.read_bytes() for path in (tmp_path / "pulled").iterdir()}
    assert there == {
        path.name: path.read_bytes() for path in source.iterdir() if path.name != "training_args.bin"
    }


def test_a_bottleneck_has_its_width_its_place_and_its_scale(tmp_path: Path) -> None:
    spec = open_dir(bottleneck(tmp_path / "out", scaling=4.0, is_parallel=True)).spec
    module = spec.modules[0]
    assert (module.path, module.kind) == ("model.layers.0.output_adapters", "block")
    assert (module.rank, module.fan_in, module.fan_out, module.scale) == (4, 16, 16, 4.0)
    assert "parallel" in spec.traits
    assert spec.base_name == "org/tiny"


def test_a_bottleneck_is_checked_against_its_base(tmp_path: Path) -> None:
    adapter = open_dir(bottleneck(tmp_path / "out"))
    assert codes(adapter, tiny_base(tmp_path / "base")) == set()
    assert codes(adapter, tiny_base(tmp_path / "shallow", layers=1)) == {"module_missing"}
    assert codes(adapter, tiny_base(tmp_path / "wide", hidden=32)) == {"shape_mismatch"}


def test_mlx_factors_are_transposed_and_their_scale_is_unchanged(tmp_path: Path) -> None:
    adapter = open_dir(mlx(tmp_path / "out"))
    module = adapter.spec.modules[0]
    assert (module.path, module.rank, module.scale) == ("model.layers.0.self_attn.q_proj", 4, 20.0)
    assert codes(adapter, tiny_base(tmp_path / "base")) == set()
    assert codes(adapter, tiny_base(tmp_path / "wide", hidden=32)) == {"shape_mismatch"}


def test_kohyas_alphas_are_read_from_tensors(tmp_path: Path) -> None:
    linear, conv = open_dir(kohya(tmp_path / "out", ss_network_alpha="4.0")).spec.modules
    assert (linear.kind, linear.scale, conv.kind, conv.scale) == ("linear", 0.5, "conv", 1.0)


@pytest.mark.parametrize(
    ("facts", "is_lost"),
    [({"ss_network_alpha": "2.0"}, True), ({"ss_network_alpha": "4"}, False), ({}, True)],
)
def test_a_kohya_file_without_alphas_is_reported_unless_alpha_equals_rank(
    facts: dict[str, str], is_lost: bool, tmp_path: Path
) -> None:
    adapter = open_dir(kohya(tmp_path / "out", alpha=None, **facts))
    assert {module.scale for module in adapter.spec.modules} == {1.0}
    assert ("alpha_unknown" in codes(adapter)) == is_lost


@pytest.mark.parametrize("alpha", [math.nan, math.inf])
def test_an_alpha_that_is_not_a_number_is_refused(alpha: float, tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match=r"to_q\.alpha is (nan|inf)"):
        open_dir(kohya(tmp_path / "out", alpha=alpha))


def test_an_alpha_of_many_elements_is_refused(tmp_path: Path) -> None:
    shapes = {"lora_unet_conv_in.lora_down.weight": (4, 4), "lora_unet_conv_in.alpha": (4,)}
    with pytest.raises(InvalidWeights, match="must be one number"):
        open_dir(written(tmp_path, "style.safetensors", shapes))


def test_magnitudes_that_diffusers_drops_are_reported(tmp_path: Path) -> None:
    folder = kohya(tmp_path / "out")
    path = "lora_unet_mid_block_attentions_0_proj_in"
    shapes = {
        f"{path}.lora_down.weight": (4, 8),
        f"{path}.lora_up.weight": (8, 4),
        f"{path}.dora_scale": (8, 1),
    }
    written(folder, "my_style.safetensors", shapes, alphas={f"{path}.alpha": 4.0})
    assert "magnitudes_dropped" in codes(open_dir(folder))


def test_a_file_is_recognised_by_its_keys_and_not_by_its_name(tmp_path: Path) -> None:
    shared = open_dir(kohya(tmp_path / "shared", file="pytorch_lora_weights.safetensors"))
    assert shared.spec.traits == ("kohya",)
    renamed = diffusers(tmp_path / "renamed") / "pytorch_lora_weights.safetensors"
    renamed.rename(renamed.with_name("flowers.safetensors"))
    assert "diffusers" in open_dir(tmp_path / "renamed").spec.traits


def test_a_diffusers_file_without_alpha_has_a_trait_and_one_with_alpha_its_scale(tmp_path: Path) -> None:
    assert "alpha_unknown" in codes(open_dir(diffusers(tmp_path / "old")))
    fields = json.dumps(
        {"unet.r": 4, "unet.lora_alpha": 8, "text_encoder.r": 4, "text_encoder.lora_alpha": 4}
    )
    adapter = open_dir(diffusers(tmp_path / "new", {"lora_adapter_metadata": fields}))
    assert "alpha_unknown" not in codes(adapter)
    assert {module.path.partition(".")[0]: module.scale for module in adapter.spec.modules} == {
        "unet": 2.0,
        "text_encoder": 1.0,
    }


@pytest.mark.parametrize(
    ("files", "remedy"),
    [
        (("adapter_config.json", "pytorch_adapter.bin"), "use_safetensors=True"),
        (("adapter_config.json", "adapter_model.bin"), "adapter_model.safetensors"),
        (("pytorch_lora_weights.bin",), "save_lora_weights"),
    ],
)
def test_pickled_weights_are_refused_with_the_conversion_command(
    files: tuple[str, ...], remedy: str, tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / file).write_bytes(b"{}")
    with pytest.raises(Unsupported, match=remedy):
        open_dir(tmp_path)


def test_transposed_factors_are_blocked(tmp_path: Path) -> None:
    at = "unet.mid_block.attentions.0.to_q"
    shapes = {f"{at}.lora_A.weight": (8, 4), f"{at}.lora_B.weight": (4, 8)}
    adapter = open_dir(written(tmp_path, "pytorch_lora_weights.safetensors", shapes))
    (found,) = (found for found in check(adapter, None).findings if found.code == "rank_mismatch")
    assert "transposed" in found.reason
    assert "save_lora_weights" in found.remedy


def test_a_factor_without_its_other_half_is_blocked(tmp_path: Path) -> None:
    adapter = open_dir(diffusers(tmp_path / "out", **{"unet.conv_in.lora_A.weight": (4, 8)}))
    assert "keys_dropped" in codes(adapter)


def test_metadata_of_another_rank_than_the_factors_is_blocked(tmp_path: Path) -> None:
    fields = json.dumps({"unet.r": 8, "unet.lora_alpha": 8, "text_encoder.r": 4})
    assert "rank_mismatch" in codes(open_dir(diffusers(tmp_path, {"lora_adapter_metadata": fields})))


def test_metadata_that_is_not_a_config_is_refused_by_its_own_name(tmp_path: Path) -> None:
    folder = diffusers(tmp_path, {"lora_adapter_metadata": json.dumps({"unet.r": "four"})})
    with pytest.raises(InvalidConfig, match="lora_adapter_metadata, of unet: r must be"):
        open_dir(folder)


def test_an_incomplete_bottleneck_is_reported(tmp_path: Path) -> None:
    folder = bottleneck(tmp_path / "out")
    shapes = {
        "model.layers.0.output_adapters.adapters.tone.adapter_down.0.weight": (4, 16),
        "model.layers.0.output_adapters.adapters.tone.adapter_down.0.bias": (4,),
    }
    written(folder, "adapter.safetensors", shapes)
    assert "no_effect" in codes(open_dir(folder))


def test_tensors_under_another_adapters_name_are_reported(tmp_path: Path) -> None:
    folder = bottleneck(tmp_path / "out")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "name": "voice"}))
    assert "no_effect" in codes(open_dir(folder))


def test_full_weights_of_mlx_are_not_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="full weights"):
        open_dir(mlx(tmp_path / "out", fine_tune_type="full"))


def test_a_weights_file_with_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match="name of kohya"):
        open_dir(written(tmp_path, "thing.safetensors", {"layer.weight": (2, 2)}))


def test_several_candidate_files_in_one_folder_are_refused(tmp_path: Path) -> None:
    kohya(tmp_path, "style-1.safetensors")
    kohya(tmp_path, "style-2.safetensors")
    with pytest.raises(NotFound, match="push each from its own folder"):
        open_dir(tmp_path)


def test_a_broken_head_beside_a_sound_adapter_is_refused(tmp_path: Path) -> None:
    folder = bottleneck(tmp_path / "out")
    (folder / "model_head.safetensors").write_bytes(b"no header at all")
    with pytest.raises(InvalidWeights, match="model_head"):
        open_dir(folder)


def test_a_registry_refuses_files_of_other_tools_beside_an_adapter(
    tmp_path: Path, registry: Registry
) -> None:
    from adaptry.adapters.content import FolderContent

    folder = mlx(tmp_path / "out")
    (folder / "head_config.json").write_text("{}")
    adapter = open_dir(folder)
    names = [*adapter.content.sizes, "head_config.json"]
    with pytest.raises(InvalidPath, match="head_config"):
        push(
            registry,
            Adapter(FolderContent(folder, names), adapter.config, adapter.header, {}, adapter.format),
            "acme/tone",
        )


def test_an_unmergeable_foreign_adapter_names_the_tool_to_use(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from adaptry.compute.merging.plan import plan_merge
    from adaptry.compute.merging.weighted_adapter import WeightedAdapter

    adapter = open_dir(TOOLS["adapterhub"][0](tmp_path / "out"))
    base = open_checkpoint(tiny_base(tmp_path / "base"))
    with pytest.raises(Unsupported, match="merge_adapter"):
        plan_merge(base, [WeightedAdapter(adapter, 1.0, "tone")])


@pytest.mark.parametrize("make", [adapterhub_lora, diffusers, kohya, mlx, torchtune])
def test_an_adapter_of_another_tool_saved_before_training_is_found(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = make(tmp_path / "made")
    assert check_weights(open_dir(folder)) == []

    (file,) = folder.glob("*.safetensors")
    with safe_open(file, "np") as opened:
        names, metadata = opened.keys(), opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in names}
    ups = [name for name in tensors if re.search(r"lora_b\b|up\.weight", name, re.IGNORECASE)]
    save_file({**tensors, **{name: tensors[name] * 0 for name in ups}}, file, metadata)

    assert [finding.code for finding in check_weights(open_dir(folder))] == ["untrained"]


def test_comfyuis_names_are_modules_with_their_alphas(tmp_path: Path) -> None:
    """diffusers 0.42 loads such files into Wan, Qwen-Image and Z-Image."""
    at = "diffusion_model.blocks.0.self_attn.q"
    shapes = {f"{at}.lora_down.weight": (4, 16), f"{at}.lora_up.weight": (16, 4)}
    folder = written(tmp_path, "style.safetensors", shapes, alphas={f"{at}.alpha": 2.0})
    adapter = open_dir(folder)
    assert [(module.path, module.rank, module.scale) for module in adapter.spec.modules] == [(at, 4, 0.5)]
    assert not check(adapter, None).is_blocked
