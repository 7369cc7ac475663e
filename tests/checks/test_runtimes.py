"""Verdicts about runtimes, mainly cases in which a runtime would load an adapter and serve it differently
from training.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting.base_fingerprint import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks.runtimes import ENGINES, RuntimeVerdict, check_runtime, parse_runtime
from adaptry.checks.runtimes.rules_page import render_page
from adaptry.core.errors import Invalid
from adaptry.testing.samples import Tensors, random_tensor, tiny_base, tiny_lora, write_safetensors
from adaptry_cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
LAYER = "base_model.model.model.layers.0"
HEAD: Tensors = {"base_model.model.lm_head.weight": random_tensor((32, 16), 7)}
ROWS: Tensors = {
    "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": random_tensor((2, 16), 8)
}
MAGNITUDES: Tensors = {
    f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_magnitude_vector": random_tensor((16,), 9)
    for layer in (0, 1)
    for name in ("q_proj", "v_proj")
}
ONE_OF_DOWN: Tensors = {
    f"{LAYER}.mlp.down_proj.lora_A.weight": random_tensor((4, 32), 10),
    f"{LAYER}.mlp.down_proj.lora_B.weight": random_tensor((16, 4), 11),
}
EMBEDDING: Tensors = {
    "base_model.model.model.embed_tokens.lora_embedding_A": random_tensor((4, 32), 12),
    "base_model.model.model.embed_tokens.lora_embedding_B": random_tensor((16, 4), 13),
}
STRANGE: Tensors = {
    "base_model.model.model.layers.0.self_attn.q_proj.lora_C.weight": random_tensor((4, 4), 14)
}


def judged(folder: Path, runtime: str, base: Path | None = None, **options: Any) -> RuntimeVerdict:
    """A verdict on a LoRA made with these options of `tiny_lora`."""
    record = fingerprint(open_checkpoint(base)) if base else None
    return check_runtime(open_dir(tiny_lora(folder, **options)), parse_runtime(runtime), record)


def codes(found: RuntimeVerdict) -> set[str]:
    return {finding.code for finding in found.findings}


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "diffusers"])
def test_a_plain_lora_is_served_as_trained_everywhere(tmp_path: Path, engine: str) -> None:
    found = judged(tmp_path / "lora", engine, tiny_base(tmp_path / "base"))
    assert (found.outcome, found.findings) == ("as_trained", ())


@pytest.mark.parametrize(
    "config",
    [
        {},
        {
            "task_type": None,
            "auto_mapping": {
                "base_model_class": "LlamaForCausalLM",
                "parent_library": "transformers.models.llama.modeling_llama",
            },
        },
    ],
    ids=["task", "class"],
)
def test_diffusers_refuses_an_adapter_of_a_language_model(tmp_path: Path, config: dict[str, Any]) -> None:
    assert codes(judged(tmp_path, "diffusers", config=config)) == {"not_a_pipeline"}


@pytest.mark.parametrize("engine", ["sglang", "lorax", "llama.cpp", "ollama", "lmdeploy"])
def test_an_ignored_rslora_scale_is_reported_with_its_factor(tmp_path: Path, engine: str) -> None:
    found = judged(tmp_path, engine, rank=16, config={"use_rslora": True})
    (finding,) = found.findings
    assert (found.outcome, finding.code) == ("not_as_trained", "scale")
    assert "4 times too weak" in finding.reason  # √16
    assert "adaptry convert" in finding.remedy


def test_peft_drops_biases_of_factors_that_the_config_does_not_declare(tmp_path: Path) -> None:
    bias = {f"{LAYER}.self_attn.q_proj.lora_B.bias": random_tensor((16,), 15)}
    found = judged(tmp_path / "lora", "peft", tiny_base(tmp_path / "base"), extra=bias)
    assert (found.outcome, codes(found)) == ("not_as_trained", {"tensors_undeclared"})


@pytest.mark.parametrize("engine", ["llama.cpp", "ollama"])
def test_llamacpp_does_not_read_an_alpha_of_zero_as_a_scale_of_zero(tmp_path: Path, engine: str) -> None:
    found = judged(tmp_path, engine, config={"lora_alpha": 0})
    assert found.outcome == "not_as_trained"
    assert "one that is not 0, as it was trained" in found.findings[0].reason


@pytest.mark.parametrize("engine", ["vllm", "tgi", "tensorrt-llm", "mistral.rs", "peft"])
def test_rslora_is_served_as_trained_by_engines_that_read_it(tmp_path: Path, engine: str) -> None:
    assert judged(tmp_path, engine, rank=16, config={"use_rslora": True}).outcome == "as_trained"


def test_rslora_of_rank_1_has_the_plain_scale(tmp_path: Path) -> None:
    assert judged(tmp_path, "sglang", rank=1, config={"use_rslora": True}).outcome == "as_trained"


@pytest.mark.parametrize(
    "engine", ["sglang", "lorax", "tgi", "tensorrt-llm", "llama.cpp", "ollama", "lmdeploy"]
)
def test_an_ignored_alpha_of_a_module_is_reported(tmp_path: Path, engine: str) -> None:
    found = judged(tmp_path, engine, config={"alpha_pattern": {"q_proj": 24}})
    assert found.outcome == "not_as_trained"
    (finding,) = [one for one in found.findings if one.code == "scale"]
    assert "3 times too weak" in finding.reason and "2 modules" in finding.reason


def test_a_pattern_that_changes_nothing_gives_no_finding(tmp_path: Path) -> None:
    assert judged(tmp_path, "llama.cpp", config={"alpha_pattern": {"q_proj": 8}}).outcome == "as_trained"


@pytest.mark.parametrize(
    ("engine", "outcome"),
    [
        *(("sglang", "not_as_trained"), ("lorax", "not_as_trained"), ("tgi", "not_as_trained")),
        *(("tensorrt-llm", "not_as_trained"), ("vllm", "refused"), ("llama.cpp", "refused")),
        *(("mistral.rs", "refused"), ("lmdeploy", "refused"), ("peft", "as_trained")),
    ],
)
def test_a_fully_saved_head_is_dropped_or_refused(tmp_path: Path, engine: str, outcome: str) -> None:
    found = judged(tmp_path, engine, extra=HEAD, config={"modules_to_save": ["lm_head"]})
    assert found.outcome == outcome
    assert outcome == "as_trained" or "saved_modules" in codes(found)


def test_vllm_takes_the_head_of_a_classifier(tmp_path: Path) -> None:
    head: Tensors = {"base_model.model.score.weight": random_tensor((2, 16), 7)}
    found = judged(
        tmp_path, "vllm", extra=head, config={"modules_to_save": ["score"], "task_type": "SEQ_CLS"}
    )
    assert found.outcome == "as_trained"


@pytest.mark.parametrize(
    ("engine", "outcome"), [("vllm", "refused"), ("sglang", "not_as_trained"), ("peft", "as_trained")]
)
def test_trained_token_rows_are_dropped_or_refused(tmp_path: Path, engine: str, outcome: str) -> None:
    assert judged(tmp_path, engine, extra=ROWS, config={"trainable_token_indices": [3, 4]}).outcome == outcome


@pytest.mark.parametrize("engine", ["vllm", "lorax"])
def test_names_that_match_only_at_their_end_have_no_effect(tmp_path: Path, engine: str) -> None:
    """vLLM compares the last part of a name, so a wrong prefix passes its check."""
    base = tiny_base(tmp_path / "base", layers=1)  # the adapter has a second layer
    found = judged(tmp_path / "lora", engine, base)
    assert found.outcome == "not_as_trained"
    assert (
        "model.layers.N.self_attn.q_proj" in next(one for one in found.findings if one.code == "names").reason
    )


def test_a_base_stored_without_the_model_prefix_gives_the_same_verdict(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    record = fingerprint(open_checkpoint(base))
    bare = {name.removeprefix("model."): shape for name, shape in record.tensors.items()}
    adapter = open_dir(tiny_lora(tmp_path / "lora"))
    vllm = parse_runtime("vllm")
    assert check_runtime(adapter, vllm, record.model_copy(update={"tensors": bare})).outcome == "as_trained"
    deeper = {f"language_model.{name}": shape for name, shape in record.tensors.items()}
    assert codes(check_runtime(adapter, vllm, record.model_copy(update={"tensors": deeper}))) == {"names"}


def test_the_experts_of_a_layer_do_not_count_as_layers(tmp_path: Path) -> None:
    experts: dict[str, Any] = {}
    for layer in range(2):
        key = f"base_model.model.model.layers.{layer}.mlp.experts.0.down_proj"
        experts[f"{key}.lora_A.weight"] = random_tensor((4, 32), 30)
        experts[f"{key}.lora_B.weight"] = random_tensor((16, 4), 31)
    found = judged(tmp_path / "lora", "lorax", tiny_base(tmp_path / "base"), extra=experts)
    assert "layers_uneven" not in codes(found)


def test_modules_outside_the_servers_target_modules_are_not_served(tmp_path: Path) -> None:
    found = judged(tmp_path, "vllm@0.33,lora_target_modules=k_proj+o_proj")
    assert (found.outcome, codes(found)) == ("not_as_trained", {"targets_left_out"})
    assert judged(tmp_path, "vllm,lora_target_modules=q_proj+v_proj").outcome == "as_trained"
    assert judged(tmp_path, "sglang,lora_target_modules=q_proj").outcome == "refused"


@pytest.mark.parametrize(
    ("runtime", "outcome"),
    [
        *(("sglang", "refused"), ("peft", "not_as_trained")),
        *(("vllm", "refused"), ("mistral.rs", "refused"), ("llama.cpp", "refused")),
    ],
)
def test_unmatched_tensors_are_dropped_or_refused(tmp_path: Path, runtime: str, outcome: str) -> None:
    found = judged(tmp_path, runtime, extra=STRANGE)
    assert found.outcome == outcome
    assert "tensors_unmatched" in codes(found)


@pytest.mark.parametrize(
    ("targets", "lacking"),
    [
        *((("q_proj",), "v_proj"), (("k_proj", "v_proj"), "q_proj"), (("up_proj",), "gate_proj")),
        *((("q_proj", "v_proj"), None), (("gate_proj",), None), (("o_proj", "down_proj"), None)),
    ],
)
def test_sglang_requires_all_parts_of_a_weight_that_it_fuses(
    tmp_path: Path, targets: tuple[str, ...], lacking: str | None
) -> None:
    found = judged(tmp_path, "sglang", targets=targets)
    assert codes(found) == ({"parts_missing"} if lacking else set())
    assert (
        lacking is None
        or f"without model.layers.N.{'mlp' if lacking[0] == 'g' else 'self_attn'}.{lacking}"
        in found.findings[0].reason
    )


def test_an_up_projection_alone_is_complete_on_a_base_without_gates(tmp_path: Path) -> None:
    record = fingerprint(open_checkpoint(tiny_base(tmp_path / "base")))
    gateless = {name: shape for name, shape in record.tensors.items() if "gate_proj" not in name}
    lora = open_dir(tiny_lora(tmp_path / "lora", targets=("up_proj",)))
    found = check_runtime(lora, parse_runtime("sglang"), record.model_copy(update={"tensors": gateless}))
    assert found.outcome == "as_trained"


def test_sglang_finds_modules_by_layer_and_last_name(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", layers=1)  # the adapter has a second layer
    assert codes(judged(tmp_path / "lora", "sglang", base)) == {"names"}
    whole = fingerprint(open_checkpoint(tiny_base(tmp_path / "whole")))
    elsewhere = {name.replace("model.", "language_model.", 1): shape for name, shape in whole.tensors.items()}
    moved = whole.model_copy(update={"tensors": elsewhere})
    lora = open_dir(tiny_lora(tmp_path / "again"))
    assert check_runtime(lora, parse_runtime("sglang"), moved).outcome == "as_trained"
    assert check_runtime(lora, parse_runtime("mistral.rs"), moved).outcome == "refused"


@pytest.mark.parametrize("engine", ["sglang", "lmdeploy"])
def test_a_module_of_another_rank_than_r_is_refused(tmp_path: Path, engine: str) -> None:
    assert "rank_pattern" in codes(judged(tmp_path, engine, config={"r": 8}))
    assert judged(tmp_path, engine, config={"rank_pattern": {"o_proj": 2}}).outcome == "as_trained"


@pytest.mark.parametrize("engine", ["mistral.rs", "lmdeploy"])
def test_modules_that_the_config_does_not_name_are_refused(tmp_path: Path, engine: str) -> None:
    found = judged(tmp_path, engine, config={"target_modules": ["q_proj"]})
    assert (found.outcome, codes(found)) == ("refused", {"targets_undeclared"})


@pytest.mark.parametrize("engine", ["sglang", "lmdeploy"])
def test_a_config_with_biases_is_served_if_the_file_has_none(tmp_path: Path, engine: str) -> None:
    assert judged(tmp_path, engine, config={"bias": "lora_only"}).outcome == "as_trained"


def test_lmdeploy_leaves_layers_without_factors_uninitialised(tmp_path: Path) -> None:
    found = judged(
        tmp_path, "lmdeploy", extra=ONE_OF_DOWN, config={"target_modules": ["q_proj", "v_proj", "down_proj"]}
    )
    assert (found.outcome, codes(found)) == ("not_as_trained", {"layers_uneven"})


@pytest.mark.parametrize("engine", ["lorax", "tgi"])
def test_a_layer_that_lacks_a_module_turns_it_off_in_all_layers(tmp_path: Path, engine: str) -> None:
    found = judged(tmp_path, engine, extra=ONE_OF_DOWN)
    assert (found.outcome, codes(found)) == ("not_as_trained", {"layers_uneven"})
    assert "model.layers.N.mlp.down_proj" in found.findings[0].reason


@pytest.mark.parametrize(
    ("engine", "outcome"),
    [
        *(("lorax", "not_as_trained"), ("tgi", "not_as_trained"), ("vllm", "refused"), ("sglang", "refused")),
        *(
            ("llama.cpp", "refused"),
            ("mistral.rs", "refused"),
            ("peft", "as_trained"),
            ("tensorrt-llm", "as_trained"),
        ),
    ],
)
def test_a_dora_is_refused_or_served_as_a_plain_lora(tmp_path: Path, engine: str, outcome: str) -> None:
    assert judged(tmp_path, engine, extra=MAGNITUDES, config={"use_dora": True}).outcome == outcome


def test_transposed_weights_are_reported(tmp_path: Path) -> None:
    found = {
        engine: judged(tmp_path, engine, config={"fan_in_fan_out": True})
        for engine in ("vllm", "sglang", "llama.cpp")
    }
    assert all("fan_in_fan_out" in codes(one) for one in found.values())
    assert found["llama.cpp"].outcome == "not_as_trained"


@pytest.mark.parametrize(
    ("written", "runtime"), [("0.18.1", "peft@0.19"), ("0.18.1", "peft"), ("0.21.2", "peft@0.18")]
)
def test_fused_experts_read_across_the_change_in_peft_0_19_are_reported_as_transposed(
    tmp_path: Path, written: str, runtime: str
) -> None:
    experts: Tensors = {
        f"{LAYER}.mlp.experts.lora_A.weight": random_tensor((8, 16), 20),
        f"{LAYER}.mlp.experts.lora_B.weight": random_tensor((16, 8), 21),
    }
    config = {"peft_version": written, "target_parameters": ["mlp.experts.down_proj"]}
    found = judged(tmp_path, runtime, extra=experts, config=config)
    assert (found.outcome, "experts_turned" in codes(found)) == ("not_as_trained", True)
    same = judged(tmp_path, f"peft@{written}", extra=experts, config=config)
    assert "experts_turned" not in codes(same)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("vllm", "prefix cache"),
        ("vllm", "Unloading"),
        ("sglang", "Unloading"),
        ("tgi", "base answers a request"),
    ],
)
def test_wrong_answers_that_depend_on_how_a_server_is_operated_are_cautions(engine: str, words: str) -> None:
    assert any(words in caution for caution in ENGINES[engine].warnings)


@pytest.mark.parametrize(
    ("runtime", "outcome", "code"),
    [
        ("vllm@0.33,max_lora_rank=16", "refused", "rank"),
        ("vllm@0.33,max_lora_rank=32", "as_trained", None),
        ("vllm", "as_trained", "rank_needs"),
        ("sglang,max_lora_rank=20", "refused", "rank"),
        ("sglang", "as_trained", None),
        ("tensorrt-llm,max_lora_rank=16", "refused", "rank"),
    ],
)
def test_a_rank_is_compared_with_the_servers_limit(
    tmp_path: Path, runtime: str, outcome: str, code: str | None
) -> None:
    found = judged(tmp_path, runtime, rank=24)
    assert (found.outcome, codes(found)) == (outcome, {code} if code else set())


def test_methods_that_depend_on_the_base_are_refused_or_served_wrongly(tmp_path: Path) -> None:
    outcomes = {
        engine: judged(tmp_path, engine, config={"init_lora_weights": "pissa"}).outcome
        for engine in ("vllm", "mistral.rs", "sglang", "llama.cpp", "peft")
    }
    assert outcomes == {
        "vllm": "refused",
        "mistral.rs": "refused",
        "sglang": "not_as_trained",
        "llama.cpp": "not_as_trained",
        "peft": "as_trained",
    }


def test_vllm_trusts_the_configs_list_of_saved_modules(tmp_path: Path) -> None:
    found = judged(tmp_path, "vllm", config={"modules_to_save": ["lm_head"]})
    assert (found.outcome, codes(found)) == ("refused", {"saved_modules_listed"})


@pytest.mark.parametrize(
    ("start", "vllm", "loaded"),
    [
        *(("eva", "as_trained", "as_trained"), ("Gaussian", "as_trained", "as_trained")),
        *(("pissa", "refused", "as_trained"), ("pissa_niter_4", "refused", "not_as_trained")),
        *(("corda", "refused", "not_as_trained"), ("lora_ga", "not_as_trained", "not_as_trained")),
    ],
)
def test_a_lost_initialisation_is_reported(tmp_path: Path, start: str, vllm: str, loaded: str) -> None:
    config = {"init_lora_weights": start}
    assert [judged(tmp_path, engine, config=config).outcome for engine in ("vllm", "peft")] == [vllm, loaded]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_configs_rank_counts_even_if_no_module_has_it(tmp_path: Path, engine: str) -> None:
    config = {"r": 64, "rank_pattern": {"q_proj": 4, "v_proj": 4}}
    assert "rank" in codes(judged(tmp_path, f"{engine},max_lora_rank=16", config=config))


@pytest.mark.parametrize(
    ("engine", "outcome"), [("mistral.rs", "refused"), ("lorax", "not_as_trained"), ("vllm", "as_trained")]
)
def test_not_every_engine_serves_an_update_of_an_embedding(tmp_path: Path, engine: str, outcome: str) -> None:
    config = {"target_modules": ["q_proj", "v_proj", "embed_tokens"]}
    assert judged(tmp_path, engine, extra=EMBEDDING, config=config).outcome == outcome


@pytest.mark.parametrize(
    ("architecture", "outcome", "found"),
    [
        ("Qwen3ForCausalLM", "as_trained", set()),
        ("Qwen2ForCausalLM", "refused", {"embeddings"}),
        ("FutureForCausalLM", "as_trained", {"embeddings"}),
        ("GPT2LMHeadModel", "refused", {"no_adapters"}),
    ],
)
def test_vllm_accepts_what_the_class_of_the_base_accepts(
    tmp_path: Path, architecture: str, outcome: str, found: set[str]
) -> None:
    """The classes of vLLM 0.32 determine whether it accepts updates of embeddings, or any adapter."""
    config = {"target_modules": ["q_proj", "v_proj", "embed_tokens"]}
    adapter = open_dir(tiny_lora(tmp_path / "lora", extra=EMBEDDING, config=config))
    record = fingerprint(open_checkpoint(tiny_base(tmp_path / "base")))
    base = record.model_copy(update={"facts": {**record.facts, "architectures": [architecture]}})
    verdict = check_runtime(adapter, parse_runtime("vllm"), base)
    assert (verdict.outcome, codes(verdict)) == (outcome, found)


@pytest.mark.parametrize(
    ("architecture", "outer", "outcome"),
    [
        ("Olmo2ForCausalLM", "", "as_trained"),
        ("OPTForCausalLM", "decoder.", "as_trained"),
        ("LlamaForCausalLM", "", "not_as_trained"),
    ],
)
def test_vllm_adds_the_first_part_of_names_for_some_classes(
    tmp_path: Path, architecture: str, outer: str, outcome: str
) -> None:
    adapter = with_names(tmp_path / "lora", "base_model.model.model.", f"base_model.model.{outer}")
    base = of_architecture(
        tmp_path / "base", architecture, lambda name: name.replace("model.", f"model.{outer}", 1)
    )
    assert check_runtime(adapter, parse_runtime("vllm"), base).outcome == outcome


def of_architecture(folder: Path, architecture: str, outer: Callable[[str], str]) -> BaseRecord:
    """The tiny Llama's record, with another class and with module names changed by `outer`."""
    record = fingerprint(open_checkpoint(tiny_base(folder)))
    tensors = {outer(name): one for name, one in record.tensors.items()}
    facts = {**record.facts, "architectures": [architecture]}
    return record.model_copy(update={"facts": facts, "tensors": tensors})


def with_names(folder: Path, old: str, new: str) -> Adapter:
    """The tiny LoRA whose module names begin differently."""
    weights = tiny_lora(folder) / "adapter_model.safetensors"
    renamed = {name.replace(old, new): value for name, value in load_file(weights).items()}
    save_file(renamed, weights, {"format": "pt"})
    return open_dir(folder)


@pytest.mark.parametrize(
    ("architecture", "stored", "named", "outcome"),
    [
        ("Qwen2_5_VLForConditionalGeneration", "model.", "model.language_model.", "as_trained"),
        ("Qwen2_5_VLForConditionalGeneration", "model.", "model.", "as_trained"),
        ("Qwen2_5_VLForConditionalGeneration", "model.", "language_model.model.", "as_trained"),
        ("Qwen2_5_VLForConditionalGeneration", "model.", "language_model.", "not_as_trained"),
        ("Gemma3ForConditionalGeneration", "language_model.model.", "model.language_model.", "as_trained"),
        ("Gemma3ForConditionalGeneration", "language_model.model.", "model.", "not_as_trained"),
        ("LlamaForCausalLM", "model.", "model.language_model.", "not_as_trained"),
    ],
)
def test_vllm_serves_every_name_that_its_class_gives_a_module_of_the_base(
    tmp_path: Path, architecture: str, stored: str, named: str, outcome: str
) -> None:
    base = of_architecture(tmp_path / "base", architecture, lambda name: name.replace("model.", stored, 1))
    adapter = with_names(tmp_path / "lora", "base_model.model.model.", f"base_model.model.{named}")
    assert check_runtime(adapter, parse_runtime("vllm"), base).outcome == outcome


@pytest.mark.parametrize(
    ("architecture", "server", "outcome"),
    [
        ("Qwen2_5_VLForConditionalGeneration", "vllm", "not_as_trained"),
        ("Qwen2_5_VLForConditionalGeneration", "vllm,enable_tower_connector_lora=false", "not_as_trained"),
        ("Qwen2_5_VLForConditionalGeneration", "vllm,enable_tower_connector_lora=true", "as_trained"),
        ("CohereCompassForConditionalGeneration", "vllm,enable_tower_connector_lora=true", "not_as_trained"),
        ("LlamaForCausalLM", "vllm", "as_trained"),
    ],
)
def test_vllm_ignores_modules_of_a_vision_tower_unless_its_option_applies_them(
    tmp_path: Path, architecture: str, server: str, outcome: str
) -> None:
    base = of_architecture(
        tmp_path / "base", architecture, lambda name: name.replace("model.layers.", "visual.blocks.", 1)
    )
    adapter = with_names(tmp_path / "lora", "model.layers.", "visual.blocks.")
    assert check_runtime(adapter, parse_runtime(server), base).outcome == outcome


@pytest.mark.parametrize(
    ("architecture", "outcome"), [("LlamaForCausalLM", "as_trained"), ("Gemma2ForCausalLM", "refused")]
)
def test_vllm_serves_an_update_of_a_tied_head_if_the_class_of_the_base_has_one(
    tmp_path: Path, architecture: str, outcome: str
) -> None:
    """The files of such a base have no head: it is the embedding table."""
    head: Tensors = {
        "base_model.model.lm_head.lora_A.weight": random_tensor((4, 16), 14),
        "base_model.model.lm_head.lora_B.weight": random_tensor((32, 4), 15),
    }
    config = {"target_modules": ["q_proj", "v_proj", "lm_head"]}
    adapter = open_dir(tiny_lora(tmp_path / "lora", extra=head, config=config))
    record = fingerprint(open_checkpoint(tiny_base(tmp_path / "base")))
    facts = {**record.facts, "architectures": [architecture], "tie_word_embeddings": True}
    tensors = {name: shape for name, shape in record.tensors.items() if not name.startswith("lm_head")}
    base = record.model_copy(update={"facts": facts, "tensors": tensors})
    assert check_runtime(adapter, parse_runtime("vllm"), base).outcome == outcome


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
def test_a_lora_with_another_peft_type_is_served_by_engines_that_ignore_it(
    tmp_path: Path, engine: str
) -> None:
    found = judged(tmp_path, engine, config={"peft_type": "IA3"})
    assert (found.outcome, codes(found)) == ("as_trained", {"method_ignored"})


@pytest.mark.parametrize("engine", list(ENGINES))
def test_no_engine_serves_an_unknown_method_as_trained(tmp_path: Path, engine: str) -> None:
    found = judged(tmp_path, engine, config={"peft_type": "NEWEST"})
    assert found.outcome != "as_trained"
    if engine in ("vllm", "llama.cpp"):
        assert "applies the factors as a LoRA's" in found.findings[0].reason


@pytest.mark.parametrize("rank", [0, -1, 1.5, "8", None])
def test_llama_cpp_does_not_read_the_rank_of_the_config(rank: object, tmp_path: Path) -> None:
    found = judged(tmp_path / "lora", "llama.cpp", tiny_base(tmp_path / "base"), config={"r": rank})
    assert (found.outcome, found.findings) == ("as_trained", ())


@pytest.mark.parametrize(
    "engine", [name for name in ENGINES if name not in ("peft", "diffusers", "vllm", "llama.cpp")]
)
def test_other_methods_are_refused_once_and_converted(tmp_path: Path, engine: str) -> None:
    found = judged(tmp_path, engine, config={"peft_type": "IA3", "feedforward_modules": []})
    (finding,) = found.findings
    assert (found.outcome, finding.code) == ("refused", "method_unknown")
    assert "adaptry convert" in finding.remedy


def test_sglang_refuses_a_target_pattern(tmp_path: Path) -> None:
    pattern = {"target_modules": ".*(q|v)_proj"}
    assert codes(judged(tmp_path, "sglang", config=pattern)) == {"targets_text"}
    assert judged(tmp_path, "vllm", config=pattern).outcome == "as_trained"


def test_added_tokens_are_refused_by_sglang_where_the_base_lacks_them(tmp_path: Path) -> None:
    base, folder = tiny_base(tmp_path / "base"), tmp_path / "lora"  # 32 rows
    folder.mkdir()
    tokens = folder / "added_tokens.json"
    tokens.write_text('{"<a>": 31}')
    assert judged(folder, "sglang", base).findings == ()
    assert codes(judged(folder, "sglang")) == {"added_tokens_needs"}
    tokens.write_text('{"<a>": 31, "<b>": 32}')
    found = judged(folder, "sglang", base)
    assert (found.outcome, codes(found)) == ("refused", {"added_tokens"})
    assert "1 token" in found.findings[0].reason


def test_ollama_refuses_a_fractional_alpha(tmp_path: Path) -> None:
    assert codes(judged(tmp_path, "ollama", config={"lora_alpha": 8.5})) == {"alpha_fraction"}


def test_ollama_accepts_few_architectures(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    config = base / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"qwen2"'))
    assert codes(judged(tmp_path / "lora", "ollama", base)) == {"base_family"}


@pytest.mark.parametrize("runtime", ["vllm@0.20", "vllm@1.0", "lmdeploy@0.1"])
def test_a_verdict_states_that_its_rules_are_for_another_version(tmp_path: Path, runtime: str) -> None:
    found = judged(tmp_path, runtime)
    assert (found.outcome, codes(found)) == ("as_trained", {"rules_of_another_version"})


def test_a_verdict_for_the_version_of_the_rules_has_no_remark(tmp_path: Path) -> None:
    assert judged(tmp_path, "vllm@0.33.0").findings == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "as in vllm@0.33"),
        ("vllm@new", "as in vllm@0.33"),
        ("vllm@0.33,max_lora_rank", "not an option"),
        ("vllm,max_lora_rank=16,max_lora_rank=32", "twice"),
        ("vllm,max_lora_rank=60", "one of 1, 8, 16"),
        ("vllm,max_loras=-1", "whole number"),
        ("vllm,rank=16", "max_lora_rank"),
        ("sglang,lora_strict_loading=yes", "true or false"),
        ("triton", "vllm, sglang"),
        ("vllm," + "x" * 2000, "not a runtime"),
    ],
)
def test_a_malformed_runtime_is_refused_with_the_right_form(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=re.escape(words)):
        parse_runtime(text)


def test_a_runtime_is_written_as_it_is_read() -> None:
    text = "vllm@0.33,max_lora_rank=64,lora_target_modules=q_proj+v_proj"
    assert str(parse_runtime(text)) == text
    assert str(parse_runtime("llamacpp")) == "llama.cpp"
    assert parse_runtime("vllm,--max-lora-rank=64") == parse_runtime("vllm,max_lora_rank=64")


def test_every_rule_names_its_source_and_commands_that_exist() -> None:
    known = {name for section in COMMANDS.values() for name in section}
    for engine in ENGINES.values():
        for rule in (*engine.preconditions, *engine.rules):
            assert rule.source and rule.title, (engine.name, rule.code)
            assert set(re.findall(r"adaptry (\w+)", rule.repair)) <= known, rule.repair


def test_the_page_of_runtimes_is_current() -> None:
    assert (ROOT / "docs" / "runtimes.md").read_text() == render_page(), (
        "run `python -m adaptry.checks.runtimes > docs/runtimes.md`"
    )


def named(folder: Path, rename: Callable[[str], str], **options: Any) -> Path:
    """A LoRA made with these options of `tiny_lora`, whose tensors have other names."""
    view = open_dir(tiny_lora(folder, **options))
    tensors = {
        rename(name): (info.dtype, info.shape, view.tensor_bytes(name)) for name, info in view.tensors.items()
    }
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    return folder


def outcomes(adapter: Path, base: Path | None = None) -> dict[str, str]:
    """The outcome for every engine except diffusers."""
    record = fingerprint(open_checkpoint(base)) if base else None
    found = open_dir(adapter)
    return {
        engine: check_runtime(found, parse_runtime(engine), record).outcome
        for engine in ENGINES
        if engine != "diffusers"
    }


def test_an_adapters_name_in_keys_is_reported_for_engines_that_do_not_read_it(tmp_path: Path) -> None:
    """vLLM 0.32, llama.cpp's converter and LMDeploy 0.18 refuse it; mistral.rs, SGLang and PEFT accept it."""
    base = tiny_base(tmp_path / "base")
    adapter = named(tmp_path / "lora", lambda name: name.replace(".weight", ".default.weight"))
    found = outcomes(adapter, base)
    assert {engine: found[engine] for engine in ("vllm", "llama.cpp", "lmdeploy", "lorax", "tgi")} == {
        **dict.fromkeys(["vllm", "llama.cpp", "lmdeploy"], "refused"),
        **dict.fromkeys(["lorax", "tgi"], "not_as_trained"),
    }
    assert [found[engine] for engine in ("mistral.rs", "sglang", "peft")] == ["as_trained"] * 3  # fmt: skip


def test_names_without_a_prefix_are_fine_for_engines_that_accept_them(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    bare = outcomes(named(tmp_path / "lora", lambda name: name.removeprefix("base_model.model.")), base)
    assert [bare[engine] for engine in ("vllm", "mistral.rs", "llama.cpp", "sglang")] == ["as_trained"] * 4
    assert bare["peft"] == "not_as_trained"

    def short(name: str) -> str:
        return name.removeprefix("base_model.model.model.")

    less = outcomes(named(tmp_path / "short", short), base)
    assert less["vllm"] == "not_as_trained"  # the last part fits, but the module does not exist
    assert (less["mistral.rs"], less["llama.cpp"]) == ("refused", "as_trained")


def test_sglang_finds_modules_by_layer_and_last_name_whatever_is_around_them(tmp_path: Path) -> None:
    """Each was read as trained by SGLang 0.5.23's own manager (seen)."""
    base = tiny_base(tmp_path / "base")
    renames: list[Callable[[str], str]] = [
        lambda name: name.replace("model.model.layers", "model.foo.layers"),
        lambda name: f"base_model.model.{name}",
        lambda name: f"module.{name}",
        lambda name: name.replace(".weight", ".foo.weight"),
        lambda name: name.replace("self_attn.", "self_attn._orig_mod."),
    ]
    for number, rename in enumerate(renames):
        adapter = named(tmp_path / str(number), rename)
        assert outcomes(adapter, base)["sglang"] == "as_trained"


def test_sglang_refuses_unsupported_targets_even_without_tensors(tmp_path: Path) -> None:
    found = judged(tmp_path, "sglang", config={"target_modules": ["q_proj", "v_proj", "foo"]})
    assert (found.outcome, codes(found)) == ("refused", {"targets_listed"})


def test_a_training_wrappers_prefix_is_detected_without_a_base(tmp_path: Path) -> None:
    adapter = named(tmp_path / "lora", lambda name: name.replace("self_attn.", "self_attn._orig_mod."))
    found = outcomes(adapter)
    assert [found[engine] for engine in ("peft", "vllm", "lorax", "mistral.rs", "llama.cpp")] == [
        "not_as_trained", "not_as_trained", "not_as_trained", "refused", "refused",
    ]  # fmt: skip


def test_a_bias_that_is_only_listed_matters_to_engines_that_read_the_config(tmp_path: Path) -> None:
    found = outcomes(tiny_lora(tmp_path, config={"bias": "lora_only"}))
    refused = {engine for engine, outcome in found.items() if outcome != "as_trained"}
    assert refused == {"vllm", "mistral.rs"}


def test_vllm_requires_the_field_target_modules_and_accepts_null(tmp_path: Path) -> None:
    adapter = tiny_lora(tmp_path, config={"target_modules": None})
    assert outcomes(adapter)["vllm"] == "as_trained"
    path = adapter / "adapter_config.json"
    fields = json.loads(path.read_text())
    del fields["target_modules"]
    path.write_text(json.dumps(fields))
    assert outcomes(adapter)["vllm"] == "refused"


@pytest.mark.parametrize("config", [{"target_modules": []}, {"lora_alpha": None}], ids=json.dumps)
def test_lmdeploy_refuses_a_config_without_modules_or_alpha(tmp_path: Path, config: dict[str, Any]) -> None:
    assert judged(tmp_path, "lmdeploy", config=config).outcome == "refused"


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"modules_to_save": ["lm_head"]}, "saved_modules_listed"),
        ({"exclude_modules": ["v_proj"]}, "targets_excluded"),
        ({"exclude_modules": r".*v_proj"}, "targets_excluded"),
        ({"target_modules": []}, "targets_empty"),
        ({"target_modules": r".*\.q_proj"}, "targets_undeclared"),
    ],
    ids=json.dumps,
)
def test_mistralrs_refuses_a_config_that_contradicts_the_file(
    tmp_path: Path, config: dict[str, Any], code: str
) -> None:
    found = judged(tmp_path, "mistral.rs", config=config)
    assert (found.outcome, codes(found)) == ("refused", {code})


def test_mistralrs_accepts_exclude_modules_without_effect(tmp_path: Path) -> None:
    assert judged(tmp_path, "mistral.rs", config={"exclude_modules": ["lm_head"]}).outcome == "as_trained"


def test_mistralrs_refuses_factors_of_float64(tmp_path: Path) -> None:
    adapter = tiny_lora(tmp_path)
    wide = {
        name: ("F64", info.shape, bytes(8 * math.prod(info.shape)))
        for name, info in open_dir(adapter).tensors.items()
    }
    write_safetensors(adapter / "adapter_model.safetensors", wide)
    found = check_runtime(open_dir(adapter), parse_runtime("mistral.rs"))
    assert (found.outcome, codes(found)) == ("refused", {"factors_double"})


def test_layers_that_the_base_lacks_are_refused_by_llamacpp(tmp_path: Path) -> None:
    found = judged(tmp_path / "lora", "llama.cpp", tiny_base(tmp_path / "base", layers=1))
    assert (found.outcome, codes(found)) == ("refused", {"names"})


def test_llamacpp_pairs_factors_by_their_shortened_names(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")

    def moved(name: str, old: str, new: str) -> str:
        return name.replace(old, new) if "lora_A" in name else name

    removed = {
        "prefix": ("base_model.model.model.", "model."),
        "language": ("base_model.model.model.", "base_model.model.language_model.model."),
    }
    for case, parts in removed.items():
        adapter = named(tmp_path / case, lambda name, parts=parts: moved(name, *parts))  # type: ignore[misc]
        assert outcomes(adapter, base)["llama.cpp"] == "as_trained"
    apart = named(
        tmp_path / "apart", lambda name: moved(name, "base_model.model.model.", "base_model.model.")
    )
    assert outcomes(apart, base)["llama.cpp"] == "refused"


def test_llamacpp_accepts_names_of_other_families_except_for_permuted_rows(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")

    def called(folder: str, module: str, alias: str) -> str:
        def rename(name: str) -> str:
            return name.replace(module, alias)

        return outcomes(named(tmp_path / folder, rename, targets=(module.rpartition(".")[2],)), base)[
            "llama.cpp"
        ]

    assert called("dense", "o_proj", "dense") == "as_trained"
    assert called("wq", "self_attn.q_proj", "attention.wq") == "refused"


@pytest.mark.parametrize("engine", ["llama.cpp", "lmdeploy"])
def test_qalora_changes_nothing_on_a_base_without_packed_weights(tmp_path: Path, engine: str) -> None:
    config = {"use_qalora": True}
    base = tiny_base(tmp_path / "base")
    assert judged(tmp_path / "lora", engine, base, config=config).outcome == "as_trained"
    assert judged(tmp_path / "lora", engine, config=config).outcome == "not_as_trained"


def test_sglang_drops_biases_of_factors(tmp_path: Path) -> None:
    bias = {f"{LAYER}.self_attn.q_proj.lora_B.bias": random_tensor((16,), 15)}
    found = judged(tmp_path, "sglang", config={"lora_bias": True}, extra=bias)
    assert (found.outcome, codes(found)) == ("not_as_trained", {"biases"})


@pytest.mark.parametrize("letter", ["A", "B"])
def test_sglang_adds_nothing_for_an_up_projection_with_one_factor(tmp_path: Path, letter: str) -> None:
    """Whatever the lost factor was, the result differs from what was trained."""
    rows, columns = {"A": (4, 16), "B": (32, 4)}[letter]
    lone = {f"{LAYER}.mlp.up_proj.lora_{letter}.weight": random_tensor((rows, columns), 16)}
    found = judged(tmp_path, "sglang", targets=("gate_proj",), extra=lone)
    assert (found.outcome, codes(found)) == ("not_as_trained", {"factors_missing"})


def test_sglang_accepts_an_adapters_name_after_embedding_factors(tmp_path: Path) -> None:
    named_inside = {f"{name}.default": tensor for name, tensor in EMBEDDING.items()}
    targets = ["q_proj", "v_proj", "k_proj", "embed_tokens"]
    found = judged(
        tmp_path, "sglang", targets=tuple(targets[:3]), config={"target_modules": targets}, extra=named_inside
    )
    assert found.outcome == "as_trained"


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"task_type": "FOO"}, "config_refused"),
        ({"target_modules": r".*\.(q|v)_proj", "layers_to_transform": [0, 1]}, "config_refused"),
        ({"trainable_token_indices": [1, 9999]}, "shapes"),
    ],
    ids=json.dumps,
)
def test_peft_refuses_values_that_check_refuses(tmp_path: Path, config: dict[str, Any], code: str) -> None:
    extra = ROWS if "trainable_token_indices" in config else None
    found = judged(tmp_path / "lora", "peft", tiny_base(tmp_path / "base"), config=config, extra=extra)
    assert (found.outcome, codes(found)) == ("refused", {code})


def test_sglang_does_not_fuse_float8_with_other_dtypes(tmp_path: Path) -> None:
    def cast(folder: str, which: str) -> RuntimeVerdict:
        adapter = tiny_lora(tmp_path / folder, targets=("q_proj", "k_proj", "v_proj"))
        view = open_dir(adapter)
        tensors = {
            name: ("F8_E4M3", info.shape, bytes(math.prod(info.shape)))
            if which in name
            else (info.dtype, info.shape, view.tensor_bytes(name))
            for name, info in view.tensors.items()
        }
        write_safetensors(adapter / "adapter_model.safetensors", tensors)
        return check_runtime(open_dir(adapter), parse_runtime("sglang"))

    assert cast("all", "lora_").outcome == "as_trained"
    some = cast("some", "q_proj")
    assert (some.outcome, codes(some)) == ("refused", {"factors_dtype"})


def test_lmdeploy_refuses_a_task_that_pefts_config_refuses(tmp_path: Path) -> None:
    found = judged(tmp_path, "lmdeploy", config={"task_type": "FOO"})
    assert (found.outcome, codes(found)) == ("refused", {"config_refused"})


@pytest.mark.parametrize("engine", ["llama.cpp", "sglang"])
def test_an_initialisation_that_changes_the_base_is_refused_for_embeddings(
    tmp_path: Path, engine: str
) -> None:
    config = {"init_lora_weights": "pissa", "target_modules": ["embed_tokens"]}
    alone = judged(tmp_path / "alone", engine, targets=(), config=config, extra=EMBEDDING)
    assert alone.outcome == "as_trained"
