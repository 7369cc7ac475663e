"""Whether a checkpoint equals a base plus adapters is proved or refuted tensor by tensor, whichever program
merged it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merge_verification.verdict import Verification
from adaptry.compute.merge_verification.verification import verify
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.plan import plan_merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry_cli.main import main

from .conftest import Make, peft, tensors_of, torch, transformers

ATTENTION = ["q_proj", "v_proj", "down_proj"]
Q = "model.layers.0.self_attn.q_proj.weight"


def verified(base: Path, found: Path, *adapters: Path | tuple[Path, float], **options: Any) -> Verification:
    pairs = [each if isinstance(each, tuple) else (each, 1.0) for each in adapters]
    inputs = [WeightedAdapter(open_dir(path), weight, path.name) for path, weight in pairs]
    return verify(
        plan_merge(open_checkpoint(base), inputs, other_base=True), open_checkpoint(found), **options
    )


def merge_with_peft(base: Path, out: Path, *adapters: Path, dtype: Any = "auto", shard: str = "1GB") -> Path:
    """Merges as users do: load, merge, save."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    for adapter in adapters:
        model = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
    model.save_pretrained(out, max_shard_size=shard)
    return out


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes tensors of a checkpoint that consists of one file."""
    from safetensors.torch import save_file

    tensors = tensors_of(folder)
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture
def base(make_base: Make) -> Path:
    return make_base("llama", torch.bfloat16)


@pytest.fixture
def adapter(base: Path, make_adapter: Make) -> Path:
    return make_adapter(base, r=8, lora_alpha=16, target_modules=ATTENTION)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"]
)
def test_a_peft_merge_in_other_shards_is_proved_bit_for_bit(
    dtype: Any, make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base("llama", dtype)
    adapter = make_adapter(base, r=8, lora_alpha=16, target_modules=ATTENTION)
    found = merge_with_peft(base, tmp_path / "merged", adapter, shard="60KB")
    assert len(list(found.glob("*.safetensors"))) > 2
    result = verified(base, found, adapter)
    assert result.is_proved
    assert {verdict.state for verdict in result.tensors} == {"same"}
    assert {verdict.tensor for verdict in result.tensors} == set(tensors_of(base))


def test_a_gpt2_with_conv1d_layers_is_proved(make_base: Make, make_adapter: Make, tmp_path: Path) -> None:
    base = make_base("gpt2")
    adapter = make_adapter(base, r=4, lora_alpha=6, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    result = verified(base, merge_with_peft(base, tmp_path / "merged", adapter), adapter)
    assert result.is_proved
    assert result.counts() == {"same": len(result.tensors)}


@pytest.mark.parametrize(
    "fields",
    [
        {"use_dora": True, "target_modules": ATTENTION},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["embed_tokens", "q_proj"]},
    ],
    ids=["dora", "modules-to-save", "embedding"],
)
def test_weights_replaced_as_a_whole_are_proved(
    fields: dict[str, Any], make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base("llama", torch.float32)
    adapter = make_adapter(base, r=4, lora_alpha=8, **fields)
    result = verified(base, merge_with_peft(base, tmp_path / "merged", adapter), adapter)
    assert result.is_proved, result.failed


def test_one_element_tampered_with_refutes_and_names_its_tensor(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    found = merge_with_peft(base, tmp_path / "merged", adapter)

    def tamper(tensors: dict[str, Any]) -> None:
        tensors[Q][3, 5] += 0.25

    rewrite(found, tamper)
    result = verified(base, found, adapter)
    assert not result.is_proved
    [verdict] = result.failed
    assert (verdict.tensor, verdict.state) == (Q, "differs")
    assert verdict.share == pytest.approx(1 / (64 * 64))
    wanted = tensors_of(merge_with_peft(base, tmp_path / "again", adapter))[Q].double()
    stored = tensors_of(base)[Q].double()
    error = (tensors_of(found)[Q].double() - wanted).norm() / (wanted - stored).norm()
    assert verdict.error == pytest.approx(float(error))


def test_a_change_of_an_unadapted_tensor_refutes(base: Path, adapter: Path, tmp_path: Path) -> None:
    found = merge_with_peft(base, tmp_path / "merged", adapter)
    rewrite(found, lambda tensors: tensors["model.norm.weight"].mul_(1.5))
    [verdict] = verified(base, found, adapter).failed
    assert verdict.tensor == "model.norm.weight"
    assert verdict.hint == "no adapter changes it, and it is not the base's"


def test_missing_extra_and_misshapen_tensors_refute(base: Path, adapter: Path, tmp_path: Path) -> None:
    found = merge_with_peft(base, tmp_path / "merged", adapter)

    def change(tensors: dict[str, Any]) -> None:
        del tensors["model.norm.weight"]
        tensors["model.added.weight"] = torch.ones(3)
        tensors[Q] = tensors[Q][:32].contiguous()

    rewrite(found, change)
    states = {verdict.tensor: verdict.state for verdict in verified(base, found, adapter).failed}
    assert states == {"model.norm.weight": "missing", "model.added.weight": "extra", Q: "shape"}


def test_the_base_itself_is_refuted_with_the_hint_that_nothing_was_applied(base: Path, adapter: Path) -> None:
    result = verified(base, base, adapter)
    assert len(result.failed) == 6
    assert {verdict.hint for verdict in result.failed} == {"it equals the base: no adapter was applied"}


@pytest.mark.parametrize(
    ("weight", "hint"),
    [
        (-1.0, "adapter was applied with the opposite sign"),
        (2.0, "adapter was applied twice"),
        (0.25, "adapter was applied at 0.25 times its weight"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_merge_at_another_weight_is_refuted_with_the_weight(
    weight: float, hint: str, dtype: Any, make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base("llama", dtype)
    adapter = make_adapter(base, r=6, lora_alpha=18, target_modules=ATTENTION)
    recipe = MergeRecipe(base=str(base), inputs=(RecipeInput(source=str(adapter), weight=weight),))
    entry = WeightedAdapter(open_dir(adapter), weight, "adapter")
    merge(recipe, open_checkpoint(base), [MergeSource(entry)], tmp_path / "merged")
    result = verified(base, tmp_path / "merged", adapter)
    assert {verdict.hint for verdict in result.failed} == {hint}
    assert len(result.failed) == 6
    assert verified(base, tmp_path / "merged", (adapter, weight)).is_proved


def test_a_merge_that_forgot_rslora_is_refuted_with_the_reason(
    make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base("llama", torch.float32)
    adapter = make_adapter(base, r=16, lora_alpha=8, use_rslora=True, target_modules=ATTENTION)
    forgetful = tmp_path / "forgetful"
    shutil.copytree(adapter, forgetful)
    config = json.loads((forgetful / "adapter_config.json").read_text())
    (forgetful / "adapter_config.json").write_text(json.dumps({**config, "use_rslora": False}))
    result = verified(base, merge_with_peft(base, tmp_path / "merged", forgetful), adapter)
    assert {verdict.hint for verdict in result.failed} == {
        "adapter was scaled by α/r, but it is rsLoRA (α/√r)"
    }


def test_another_adapter_is_refuted(base: Path, adapter: Path, make_adapter: Make, tmp_path: Path) -> None:
    other = make_adapter(base, "other", seed=9, r=8, lora_alpha=16, target_modules=ATTENTION)
    result = verified(base, merge_with_peft(base, tmp_path / "merged", other), adapter)
    assert {verdict.hint for verdict in result.failed} == {"it is not a multiple of the update"}


def test_adapters_merged_in_turn_are_proved_equal_except_for_rounding(
    base: Path, adapter: Path, make_adapter: Make, tmp_path: Path
) -> None:
    second = make_adapter(base, "second", seed=2, r=4, lora_alpha=4, target_modules=["q_proj"])
    found = merge_with_peft(base, tmp_path / "merged", adapter, second)
    result = verified(base, found, adapter, second, tolerance=0)
    assert result.is_proved
    assert {verdict.hint for verdict in result.tensors if verdict.state == "rounding"} == {
        "each adapter was merged and rounded in turn"
    }


def test_the_adapter_missing_from_a_merge_is_named(
    base: Path, adapter: Path, make_adapter: Make, tmp_path: Path
) -> None:
    second = make_adapter(base, "second", seed=2, r=4, lora_alpha=8, target_modules=["q_proj"])
    result = verified(base, merge_with_peft(base, tmp_path / "merged", adapter), adapter, second)
    assert {verdict.tensor for verdict in result.failed} == {Q, Q.replace("layers.0", "layers.1")}
    assert {verdict.hint for verdict in result.failed} == {"second was not applied"}


@pytest.mark.parametrize("loaded", ["before", "after"])
def test_a_merge_in_another_dtype_than_the_bases_is_proved(
    loaded: str, make_base: Make, make_adapter: Make, tmp_path: Path
) -> None:
    base = make_base("llama", torch.float32)
    adapter = make_adapter(base, r=8, lora_alpha=16, target_modules=ATTENTION)
    if loaded == "before":
        found = merge_with_peft(base, tmp_path / "merged", adapter, dtype=torch.bfloat16)
    else:
        found = merge_with_peft(base, tmp_path / "merged", adapter)
        rewrite(found, lambda tensors: tensors.update({k: v.bfloat16() for k, v in tensors.items()}))
    result = verified(base, found, adapter, tolerance=0)
    assert result.is_proved, result.failed
    assert {verdict.hint for verdict in result.tensors if verdict.state == "rounding"} == (
        {"the base was bfloat16 before the merge"} if loaded == "before" else set()
    )


def test_a_tolerance_of_no_unit_refutes_what_one_unit_proves(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    found = merge_with_peft(base, tmp_path / "merged", adapter)

    def nudge(tensors: dict[str, Any]) -> None:
        bits = tensors[Q].view(torch.int16)
        bits[0, 0] += 1

    rewrite(found, nudge)
    result = verified(base, found, adapter)
    assert result.is_proved
    assert [(v.tensor, v.ulp) for v in result.tensors if v.state == "within"] == [(Q, 1)]
    assert not verified(base, found, adapter, tolerance=0).is_proved


def test_a_config_with_another_rope_refutes(base: Path, adapter: Path, tmp_path: Path) -> None:
    found = merge_with_peft(base, tmp_path / "merged", adapter)
    config = json.loads((found / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 500_000.0
    (found / "config.json").write_text(json.dumps(config))
    result = verified(base, found, adapter)
    assert not result.is_proved
    assert result.config == ("config.json: rope.rope_theta is 500000, but in the merge 10000",)


def test_untied_embeddings_are_proved(make_base: Make, make_adapter: Make, tmp_path: Path) -> None:
    base = make_base("llama", torch.float32, tied=True)
    adapter = make_adapter(base, r=4, lora_alpha=8, target_modules=["lm_head"])
    recipe = MergeRecipe(base=str(base), inputs=(RecipeInput(source=str(adapter)),))
    entry = WeightedAdapter(open_dir(adapter), 1.0, "adapter")
    merge(recipe, open_checkpoint(base), [MergeSource(entry)], tmp_path / "merged")
    assert verified(base, tmp_path / "merged", adapter).is_proved


def run(*words: str) -> Any:
    return CliRunner().invoke(main, ["verify-merge", *words])


def test_the_command_proves_with_exit_0_and_refutes_with_exit_1(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    found = merge_with_peft(base, tmp_path / "merged", adapter)
    proved = run(str(found), "--base", str(base), "--adapter", str(adapter))
    assert (proved.exit_code, proved.stdout.split(":")[0]) == (0, "proved"), proved.output
    refuted = run(str(found), "--base", str(base), "--adapter", f"{adapter}=0.5", "--json")
    answer = json.loads(refuted.stdout)
    assert refuted.exit_code == 1
    assert answer["proved"] is False
    assert answer["counts"]["differs"] == 6


def test_a_merged_folder_is_verified_from_its_own_record(base: Path, adapter: Path, tmp_path: Path) -> None:
    recipe = MergeRecipe(base=str(base), inputs=(RecipeInput(source=str(adapter), weight=0.5),), dtype="F16")
    entry = WeightedAdapter(open_dir(adapter), 0.5, str(adapter))
    merge(recipe, open_checkpoint(base), [MergeSource(entry)], tmp_path / "merged")
    assert run(str(tmp_path / "merged")).exit_code == 0
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    changed = run(str(tmp_path / "merged"))
    assert changed.exit_code == 1
    assert "it has changed since" in changed.stderr


def test_a_folder_without_a_record_asks_for_base_and_adapters(base: Path) -> None:
    answer = run(str(base))
    assert answer.exit_code == 3
    assert "--base and --adapter" in answer.stderr


def test_a_value_that_is_not_a_number_is_reported(base: Path, adapter: Path, tmp_path: Path) -> None:
    found = merge_with_peft(base, tmp_path / "merged", adapter)

    def spoil(tensors: dict[str, Any]) -> None:
        tensors[Q][0, 0] = float("nan")

    rewrite(found, spoil)
    [verdict] = verified(base, found, adapter).failed
    assert (verdict.tensor, verdict.hint) == (Q, "it contains NaN")


def test_the_tolerance_applies_only_to_adapted_tensors(base: Path, adapter: Path, tmp_path: Path) -> None:
    found = merge_with_peft(base, tmp_path / "merged", adapter)
    untouched = "model.layers.0.mlp.up_proj.weight"

    def nudge(tensors: dict[str, Any]) -> None:
        tensors[untouched].view(torch.int16)[0, 0] += 1

    rewrite(found, nudge)
    [verdict] = verified(base, found, adapter).failed
    assert (verdict.tensor, verdict.ulp) == (untouched, 1)
    assert verdict.hint == "no adapter changes it, and it is not the base's"
