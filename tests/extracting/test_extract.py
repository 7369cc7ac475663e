"""A LoRA extracted from a fine-tuned model and its base: optimal for its rank, with an exact error, and
loadable by PEFT.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.extraction.extracted_adapter import build_extracted_adapter
from adaptry.compute.extraction.plan import ExtractPlan, plan_extraction
from adaptry.compute.extraction.recipe import ExtractRecipe
from adaptry.compute.extraction.verify_roundtrip import verify_extraction
from adaptry.compute.lazy_adapters.folder_writer import ComputeResult, write_adapter
from adaptry.compute.merge_verification.verdict import Verification
from adaptry.core.errors import AdaptryError, CheckFailed, Invalid

from .conftest import answers, model_of, peft, torch, trained, transformers

Saved = Callable[..., Path]
KINDS = ["llama", "tied llama", "qwen2", "mixtral", "gpt2", "bert", "t5"]


def extracted(base: Path, tuned: Path, target: Path, **recipe: Any) -> tuple[ExtractPlan, ComputeResult]:
    decided = plan_extraction(ExtractRecipe(**recipe), open_checkpoint(base), open_checkpoint(tuned))
    return decided, write_adapter(build_extracted_adapter(decided, str(base)), target)


def merged_back(decided: ExtractPlan, adapter: Path) -> Verification:
    found = verify_extraction(decided, open_dir(adapter), adapter.name)
    assert isinstance(found, Verification), found
    return found


def weights_of(folder: Path) -> dict[str, Any]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_with_full_rank_the_live_adapter_answers_as_the_fine_tune(
    kind: str, saved: Saved, tmp_path: Path
) -> None:
    model = model_of(kind)
    tuned = trained(model)
    base, fine = saved(model, "base"), saved(tuned, "tuned")
    decided, _ = extracted(base, fine, tmp_path / "lora", rank=100)
    assert not decided.left_out
    live = peft.PeftModel.from_pretrained(type(model).from_pretrained(base), tmp_path / "lora")
    wanted = answers(tuned)
    assert (answers(live) - wanted).abs().max() < 1e-5 * wanted.abs().max() + 1e-6
    assert (answers(model) - wanted).abs().max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_with_full_rank_merging_back_gives_the_fine_tune(kind: str, saved: Saved, tmp_path: Path) -> None:
    model = model_of(kind)
    base, fine = saved(model, "base"), saved(trained(model), "tuned")
    decided, _ = extracted(base, fine, tmp_path / "lora", rank=100)
    result = merged_back(decided, tmp_path / "lora")
    assert result.error < 1e-6
    assert {verdict.state for verdict in result.tensors} <= {"same", "within", "rounding", "differs"}


def test_the_lost_energy_is_what_the_best_approximation_loses(saved: Saved, tmp_path: Path) -> None:
    model = model_of("llama")
    base, fine = saved(model, "base"), saved(trained(model, ["q_proj", "mlp"]), "tuned")
    _, outcome = extracted(base, fine, tmp_path / "lora", rank=5)
    before, after = weights_of(base), weights_of(fine)
    for module in outcome.modules:
        name = f"{module.module}.weight"
        values = torch.linalg.svdvals((after[name] - before[name]).double())
        assert module.figures["energy"] == pytest.approx(float(values.square().sum()), rel=1e-10)
        assert module.figures["lost"] == pytest.approx(float(values[5:].square().sum()), rel=1e-10)


def test_the_error_after_merging_back_is_the_reported_one(saved: Saved, tmp_path: Path) -> None:
    model = model_of("llama")
    base, fine = saved(model, "base"), saved(trained(model, ["q_proj", "mlp"]), "tuned")
    decided, outcome = extracted(base, fine, tmp_path / "lora", rank=8)
    result = merged_back(decided, tmp_path / "lora")
    assert result.error == pytest.approx(outcome.error, rel=1e-5)
    from_files = 0.0
    merged = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(base), tmp_path / "lora"
    ).merge_and_unload()
    after, before = weights_of(fine), weights_of(base)
    change = sum(float((after[name] - before[name]).double().square().sum()) for name in after)
    for name, tensor in merged.state_dict().items():
        from_files += float((tensor - after[name]).double().square().sum())
    assert result.error == pytest.approx((from_files / change) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_extraction_recovers_a_merged_adapter(dtype: Any, saved: Saved, tmp_path: Path) -> None:
    model = model_of("llama").to(dtype)
    base = saved(model, "base")
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    deltas = {
        name.replace("base_model.model.", ""): module.get_delta_weight("default").float()
        for name, module in adapted.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    fine = saved(adapted.merge_and_unload(), "tuned")
    decided, outcome = extracted(base, fine, tmp_path / "lora", rank=4)
    adapter = open_dir(tmp_path / "lora")
    assert {module.path for module in adapter.spec.modules} == deltas.keys()
    assert adapter.config.fields["target_modules"] == ["down_proj", "q_proj"]
    rounding = 1e-5 if dtype == torch.float32 else 5e-2
    assert outcome.error < rounding
    factors = weights_of(tmp_path / "lora")
    for path, delta in deltas.items():
        key = f"base_model.model.{path}"
        found = factors[f"{key}.lora_B.weight"] @ factors[f"{key}.lora_A.weight"]
        assert (found - delta).norm() < rounding * delta.norm()
    assert merged_back(decided, tmp_path / "lora").error < rounding


def test_each_module_gets_the_smallest_rank_that_keeps_the_energy(saved: Saved, tmp_path: Path) -> None:
    model = model_of("llama")
    base, fine = saved(model, "base"), saved(trained(model, ["o_proj", "up_proj"]), "tuned")
    _, outcome = extracted(base, fine, tmp_path / "lora", energy=0.8)
    before, after = weights_of(base), weights_of(fine)
    ranks = {module.path: module.rank for module in open_dir(tmp_path / "lora").spec.modules}
    for module in outcome.modules:
        name = f"{module.module}.weight"
        squares = torch.linalg.svdvals((after[name] - before[name]).double()).square()
        kept = squares.cumsum(0) / squares.sum()
        assert ranks[module.module] == int((kept < 0.8).sum()) + 1
    assert outcome.kept is not None
    assert outcome.kept >= 0.8


def test_the_same_recipe_gives_the_same_bytes(saved: Saved, tmp_path: Path) -> None:
    torch.manual_seed(0)
    wide = transformers.LlamaConfig(
        hidden_size=512, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4, vocab_size=16
    )
    model = transformers.LlamaForCausalLM(wide)
    base, fine = saved(model, "base"), saved(trained(model, ["q_proj", "o_proj"]), "tuned")
    files = []
    for name in ("one", "two"):
        _, outcome = extracted(base, fine, tmp_path / name, rank=8, seed=3)
        files.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert files[0] == files[1]
    before, after = weights_of(base), weights_of(fine)
    for module in outcome.modules:  # a projection: nearly optimal, never overstated
        name = f"{module.module}.weight"
        best = float(torch.linalg.svdvals((after[name] - before[name]).double())[8:].square().sum())
        assert best * (1 - 1e-9) <= module.figures["lost"] <= best * 1.01
        key = f"base_model.model.{module.module}"
        factors = weights_of(tmp_path / "one")
        left = (after[name] - before[name]).double() - (
            factors[f"{key}.lora_B.weight"].double() @ factors[f"{key}.lora_A.weight"].double()
        )
        assert float(left.square().sum()) == pytest.approx(module.figures["lost"], rel=1e-6)


def test_unchanged_weights_are_left_out(saved: Saved, tmp_path: Path) -> None:
    model = model_of("llama")
    base, fine = saved(model, "base"), saved(trained(model, ["layers.1.self_attn.k_proj"]), "tuned")
    decided, _ = extracted(base, fine, tmp_path / "lora", rank=2)
    adapter = open_dir(tmp_path / "lora")
    assert [module.path for module in adapter.spec.modules] == ["model.layers.1.self_attn.k_proj"]
    assert adapter.config.fields["target_modules"] == ["model.layers.1.self_attn.k_proj"]
    assert decided.notes[0] == "1 of 21 weights changed, 20 equal the base's"


def test_norms_and_biases_are_kept_whole(saved: Saved, tmp_path: Path) -> None:
    model = model_of("qwen2")
    tuned = trained(
        model, ["layers.0.self_attn.q_proj", "layers.1.input_layernorm", "layers.1.self_attn.v_proj.bias"]
    )
    base, fine = saved(model, "base"), saved(tuned, "tuned")
    decided, _ = extracted(base, fine, tmp_path / "lora", rank=64)
    fields = open_dir(tmp_path / "lora").config.fields
    assert (fields["modules_to_save"], fields["bias"]) == (["model.layers.1.input_layernorm"], "all")
    assert merged_back(decided, tmp_path / "lora").error < 1e-6
    live = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(base), tmp_path / "lora"
    )
    assert torch.allclose(answers(live), answers(tuned), atol=1e-5)


def test_sharding_and_dtype_of_the_two_may_differ(saved: Saved, tmp_path: Path) -> None:
    model = model_of("llama")
    base = saved(model, "base", max_shard_size="50KB")
    tuned = trained(model, ["q_proj"]).to(torch.bfloat16)
    fine = saved(tuned, "tuned")
    decided, _ = extracted(base, fine, tmp_path / "lora", rank=64)
    assert {module.path.rpartition(".")[2] for module in open_dir(tmp_path / "lora").spec.modules} == {
        "q_proj"
    }
    assert merged_back(decided, tmp_path / "lora").error < 1e-2


def test_only_matching_modules_are_extracted_and_others_are_listed(saved: Saved, tmp_path: Path) -> None:
    model = model_of("llama")
    base, fine = saved(model, "base"), saved(trained(model, ["q_proj", "up_proj"]), "tuned")
    decided, _ = extracted(base, fine, tmp_path / "lora", rank=64, modules=("q_proj",))
    assert {module.path.rpartition(".")[2] for module in open_dir(tmp_path / "lora").spec.modules} == {
        "q_proj"
    }
    assert any(note.startswith("2 of them are left out") for note in decided.notes)
    result = merged_back(decided, tmp_path / "lora")
    left = {verdict.tensor for verdict in result.tensors if verdict.error and verdict.error > 1e-3}
    assert left == {f"model.layers.{layer}.mlp.up_proj.weight" for layer in (0, 1)}


def test_a_larger_vocabulary_is_kept_as_whole_embeddings(saved: Saved, tmp_path: Path) -> None:
    model = model_of("llama")
    tuned = trained(model, ["q_proj"])
    tuned.resize_token_embeddings(104)
    base, fine = saved(model, "base"), saved(tuned, "tuned")
    decided, _ = extracted(base, fine, tmp_path / "lora", rank=64)
    extras = {extra.target: extra.shape for extra in open_dir(tmp_path / "lora").spec.extras}
    assert extras == {"lm_head.weight": (104, 64), "model.embed_tokens.weight": (104, 64)}
    assert merged_back(decided, tmp_path / "lora").error < 1e-6


def test_an_unrepresentable_parameter_is_reported_with_its_energy(saved: Saved, tmp_path: Path) -> None:
    model = model_of("llama")
    base, fine = saved(model, "base"), saved(trained(model, ["q_proj"]), "tuned")
    for folder, value in ((base, 1.0), (fine, 1.5)):
        tensors = {**weights_of(folder), "model.layers.0.temperature": torch.full((4,), value)}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    decided, outcome = extracted(base, fine, tmp_path / "lora", rank=64)
    [left] = [module.figures for module in outcome.modules if module.module.endswith("temperature")]
    assert left == {"energy": 1.0, "lost": 1.0, "rank": 0}
    assert any("temperature changed and is left out" in note for note in decided.notes)
    assert outcome.error > 0


@pytest.mark.parametrize(
    ("error", "words", "fine"),
    [
        (CheckFailed, "the same weights", "same"),
        (CheckFailed, "is a matrix with an unchanged shape", "norms"),
        (CheckFailed, "have different architectures", "deeper"),
    ],
)
def test_an_impossible_extraction_is_refused(
    error: type[AdaptryError], words: str, fine: str, saved: Saved
) -> None:
    model = model_of("llama")
    base = saved(model, "base")
    match fine:
        case "same":
            other = model
        case "norms":
            other = trained(model, ["norm"])
        case _:
            config = transformers.LlamaConfig(
                **{**model.config.to_dict(), "num_hidden_layers": 3, "layer_types": None}
            )
            other = transformers.LlamaForCausalLM(config)
    with pytest.raises(error, match=words):
        plan_extraction(ExtractRecipe(rank=4), open_checkpoint(base), open_checkpoint(saved(other, "other")))


def test_a_pattern_that_matches_nothing_is_refused(saved: Saved) -> None:
    model = model_of("llama")
    base, fine = saved(model, "base"), saved(trained(model, ["q_proj"]), "tuned")
    with pytest.raises(Invalid, match="no changed weight matches 'k_proj'"):
        plan_extraction(
            ExtractRecipe(rank=4, modules=("k_proj",)), open_checkpoint(base), open_checkpoint(fine)
        )


def test_the_recipe_names_both_checkpoints_by_content(saved: Saved, tmp_path: Path) -> None:
    model = model_of("llama")
    base, fine = saved(model, "base"), saved(trained(model, ["q_proj"]), "tuned")
    decided, _ = extracted(base, fine, tmp_path / "lora", rank=4)
    recipe = json.loads(json.dumps(build_extracted_adapter(decided).recipe))
    assert recipe["base"] == str(decided.base_record.id)
    assert recipe["finetuned"] == str(decided.tuned_record.id)
    assert (recipe["rank"], recipe["seed"]) == (4, 0)
