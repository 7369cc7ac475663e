"""Findings about an adapter without its base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.checks import check
from adaptry.checks.base_codes import BASE_CODES
from adaptry.checks.codes import ADAPTER_CODES
from adaptry.checks.codes_page import render_page
from adaptry.core.errors import InvalidConfig
from adaptry.core.report import Finding
from adaptry.testing.samples import Tensors, random_tensor, tiny_lora, write_safetensors

ROOT = Path(__file__).parents[2]
Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


def found(adapter: Adapter) -> dict[str, Finding]:
    return {finding.code: finding for finding in check(adapter, None).findings}


def lora(folder: Path, **options: Any) -> dict[str, Finding]:
    return found(open_dir(tiny_lora(folder, **options)))


def with_tensors(
    folder: Path, tensors: Tensors, config: Mapping[str, Any] | None = None
) -> dict[str, Finding]:
    """A LoRA whose file holds exactly `tensors`."""
    tiny_lora(folder, config=config)
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    return found(open_dir(folder))


def test_a_sound_adapter_has_no_finding_except_about_its_base(tmp_path: Path) -> None:
    assert set(lora(tmp_path)) == {"base_unknown"}


def test_the_finding_names_the_unknown_base(tmp_path: Path) -> None:
    report = check(open_dir(tiny_lora(tmp_path, base_name="acme/base")), None)
    assert not report.is_blocked
    assert "'acme/base'" in report.findings[0].reason


@pytest.mark.parametrize("library", ["__main__", "my_project.models.net"])
def test_a_custom_model_class_is_reported_without_an_error(tmp_path: Path, library: str) -> None:
    mapping = {"base_model_class": "Net", "parent_library": library}
    findings = lora(tmp_path, config={"task_type": None, "auto_mapping": mapping})

    assert set(findings) == {"base_unknown", "library_unknown"}
    assert library in findings["library_unknown"].reason


@pytest.mark.parametrize("library", ["transformers.models.llama.modeling_llama", "torchvision.models.resnet"])
def test_a_model_class_of_a_known_library_gives_no_finding(tmp_path: Path, library: str) -> None:
    mapping = {"base_model_class": "Net", "parent_library": library}
    findings = lora(tmp_path, config={"task_type": None, "auto_mapping": mapping})

    assert set(findings) == {"base_unknown"}


def test_serious_findings_come_first(tmp_path: Path) -> None:
    report = check(open_dir(tiny_lora(tmp_path, alpha=0, config={"peft_version": "99.0"})), None)
    assert [finding.severity for finding in report.findings] == ["blocks", "warns", "notes"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (Q_PROJ.removeprefix("base_model.model."), "do not begin with"),
        (f"base_model.model.{Q_PROJ}", "twice"),
    ],
    ids=["no prefix", "prefix twice"],
)
def test_tensor_names_that_no_loader_reads_have_no_effect(tmp_path: Path, name: str, why: str) -> None:
    pair = {
        f"{name}.lora_A.weight": random_tensor((4, 16), 1),
        f"{name}.lora_B.weight": random_tensor((16, 4), 2),
    }
    finding = with_tensors(tmp_path, pair)["no_effect"]
    assert finding.severity == "blocks"
    assert why in finding.reason


def test_an_empty_file_has_no_effect(tmp_path: Path) -> None:
    assert "has no tensors" in with_tensors(tmp_path, {})["no_effect"].reason


def test_weights_that_zero3_saved_without_elements_have_the_remedy_to_gather_them(tmp_path: Path) -> None:
    names = [f"{Q_PROJ}.lora_{side}.weight" for side in "AB"]
    finding = with_tensors(tmp_path, dict.fromkeys(names, ("F32", (0,), b"")))["no_effect"]
    assert "they have no elements, as ZeRO-3 saves weights that it did not gather" in finding.reason
    assert "stage3_gather_16bit_weights_on_model_save" in finding.remedy


def test_half_a_pair_would_be_dropped(tmp_path: Path) -> None:
    half = {"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": random_tensor((4, 16), 3)}
    finding = lora(tmp_path, extra=half)["keys_dropped"]
    assert finding.severity == "blocks"
    assert finding.modules == tuple(half)


def test_a_stray_tensor_is_a_warning(tmp_path: Path) -> None:
    stray = {"base_model.model.model.layers.0.mlp.gate.weight": random_tensor((4, 16), 3)}
    assert lora(tmp_path, extra=stray)["keys_unknown"].severity == "warns"


def test_a_rank_that_differs_from_the_config_blocks(tmp_path: Path) -> None:
    finding = lora(tmp_path, rank=4, config={"r": 8})["rank_mismatch"]
    assert "the factors have rank 4, but the config declares 8" in finding.reason
    assert len(finding.modules) == 4


def test_a_rank_pattern_is_honoured(tmp_path: Path) -> None:
    patterns = {"r": 8, "rank_pattern": {"q_proj": 4, "v_proj": 4}}
    assert "rank_mismatch" not in lora(tmp_path, rank=4, config=patterns)


def test_factors_of_different_ranks_block(tmp_path: Path) -> None:
    pair = {
        f"{Q_PROJ}.lora_A.weight": random_tensor((4, 16), 1),
        f"{Q_PROJ}.lora_B.weight": random_tensor((16, 2), 2),
    }
    assert "A has rank 4 and B has rank 2" in with_tensors(tmp_path, pair)["rank_mismatch"].reason


@pytest.mark.parametrize("alpha", [0, 1e-40, -1e-13])
def test_an_alpha_of_almost_zero_blocks(alpha: float, tmp_path: Path) -> None:
    assert lora(tmp_path, config={"lora_alpha": alpha})["scale_zero"].severity == "blocks"


def test_an_alpha_of_zero_for_some_modules_is_a_warning(tmp_path: Path) -> None:
    found = lora(tmp_path, config={"alpha_pattern": {"q_proj": 0}})
    assert "scale_zero" not in found
    assert "q_proj" in found["modules_scaled_to_zero"].reason


def test_an_alpha_of_zero_leaves_the_magnitudes_of_a_dora(tmp_path: Path) -> None:
    magnitude = {f"{Q_PROJ}.lora_magnitude_vector": random_tensor((16,), 5)}
    found = lora(tmp_path, config={"lora_alpha": 0, "use_dora": True}, layers=1, extra=magnitude)
    assert "scale_zero" not in found
    assert "q_proj" in found["modules_scaled_to_zero"].reason


def test_two_patterns_for_one_module_are_a_warning(tmp_path: Path) -> None:
    patterns = {"alpha_pattern": {"q_proj": 16, "self_attn.q_proj": 32}}
    assert "16 and 32" in lora(tmp_path, config=patterns)["pattern_conflict"].reason


def test_integer_factors_block(tmp_path: Path) -> None:
    pair = {
        f"{Q_PROJ}.lora_A.weight": ("I8", (4, 16), bytes(64)),
        f"{Q_PROJ}.lora_B.weight": ("I8", (16, 4), bytes(64)),
    }
    assert "I8" in with_tensors(tmp_path, pair)["integer_weights"].reason


@pytest.mark.parametrize("field", ["r", "lora_alpha", "target_modules"])
def test_a_field_that_peft_would_fill_in_is_a_warning(tmp_path: Path, field: str) -> None:
    path = tiny_lora(tmp_path, rank=8) / "adapter_config.json"
    fields = json.loads(path.read_text())
    del fields[field]
    path.write_text(json.dumps(fields))
    assert field in found(open_dir(tmp_path))["config_incomplete"].reason


def test_a_target_without_tensors_is_a_warning(tmp_path: Path) -> None:
    finding = lora(tmp_path, config={"target_modules": ["q_proj", "v_proj", "o_proj"]})[
        "targets_without_tensors"
    ]
    assert finding.modules == ("o_proj",)


@pytest.mark.parametrize("excluded", [["o_proj"], r".*\.o_proj"], ids=["list", "pattern"])
def test_an_excluded_module_is_not_a_target(tmp_path: Path, excluded: object) -> None:
    targets = ["q_proj", "v_proj", "model.layers.0.self_attn.o_proj"]
    fields = {"target_modules": targets, "exclude_modules": excluded}
    assert set(lora(tmp_path, config=fields)) == {"base_unknown"}


def test_excluding_one_target_does_not_excuse_another(tmp_path: Path) -> None:
    fields = {"target_modules": ["q_proj", "v_proj", "o_proj"], "exclude_modules": ["k_proj"]}
    assert lora(tmp_path, config=fields)["targets_without_tensors"].modules == ("o_proj",)


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_undetermined_ranks_and_scales_block(tmp_path: Path, key: str) -> None:
    finding = lora(tmp_path, config={key: {r"(?!(?:[\w.]+)+!)x": 4}})["scale_unknown"]
    assert finding.severity == "blocks"
    assert key in finding.reason
    assert "hours" in finding.reason


def test_fields_that_peft_would_drop_are_named(tmp_path: Path) -> None:
    finding = lora(tmp_path, config={"use_rs_lora": True, "lora_alfa": 3})["config_unknown"]
    assert finding.severity == "warns"
    assert "'lora_alfa', 'use_rs_lora'" in finding.reason


def test_a_pattern_with_a_lookahead_is_not_reported_as_endless(tmp_path: Path) -> None:
    pattern = {"target_modules": r"^(?!.*layers\.7).*([qv]_proj)$"}
    assert set(lora(tmp_path, config=pattern)) == {"base_unknown"}


def test_a_finding_about_counted_tensors_has_the_right_number(tmp_path: Path) -> None:
    fields = {"peft_type": "OF_TOMORROW", "peft_version": "99.0"}
    one = with_tensors(tmp_path / "one", {"prompt_embeddings": random_tensor((2, 4), 1)}, fields)
    assert "its 1 tensor was only counted" in one["method_not_described"].reason
    pair = {name: random_tensor((2, 4), 1) for name in ("a", "b")}
    two = with_tensors(tmp_path / "two", pair, fields)
    assert "its 2 tensors were only counted" in two["method_not_described"].reason


def test_a_pattern_with_nested_repeats_is_not_reported_as_endless(tmp_path: Path) -> None:
    config = {"target_modules": r"(?:(?:\w+)\.)*[qv]_proj", "rank_pattern": {"(a+)+b": 4}}
    assert set(lora(tmp_path, config=config)) == {"base_unknown", "pattern_unused"}


def test_a_pattern_that_may_never_end_is_a_finding_and_not_an_error(tmp_path: Path) -> None:
    assert (
        "hours" in lora(tmp_path, config={"target_modules": r"(?!(?:[\w.]+)+!)x"})["pattern_refused"].reason
    )


def test_layers_to_transform_beside_a_pattern_blocks_as_peft_refuses_it(tmp_path: Path) -> None:
    fields = {"target_modules": r".*\.q_proj", "layers_to_transform": [0]}
    assert "layers_need_a_list" in lora(tmp_path, config=fields)


def test_saved_modules_that_were_not_saved_are_a_warning(tmp_path: Path) -> None:
    assert (
        "score"
        in lora(tmp_path, config={"modules_to_save": ["score"]})["saved_modules_without_tensors"].reason
    )


def test_one_of_the_two_heads_that_peft_lists_is_enough(tmp_path: Path) -> None:
    head = {"base_model.model.score.weight": random_tensor((2, 16), 5)}
    fields = {"modules_to_save": ["classifier", "score"], "task_type": "SEQ_CLS"}
    assert set(lora(tmp_path, config=fields, extra=head)) == {"base_unknown"}


def test_a_task_that_peft_does_not_know_is_a_warning(tmp_path: Path) -> None:
    assert "task_unknown" in lora(tmp_path, config={"task_type": "FOO"})


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_16", "olora", "corda", "lora_ga", "loftq"])
def test_an_initialisation_that_changed_the_base_is_a_warning(tmp_path: Path, init: str) -> None:
    assert init in lora(tmp_path, config={"init_lora_weights": init})["depends_on_base"].reason


def test_a_feature_that_cannot_be_merged_is_noted(tmp_path: Path) -> None:
    assert lora(tmp_path, config={"alora_invocation_tokens": [1]})["limited_use"].severity == "notes"


def test_an_adapter_of_an_unknown_method_is_accepted_with_a_warning(tmp_path: Path) -> None:
    report = check(
        open_dir(tiny_lora(tmp_path, config={"peft_type": "BRANDNEW", "peft_version": "99.0"})), None
    )
    assert not report.is_blocked
    assert "method_not_described" in {finding.code for finding in report.findings}


def test_an_unknown_method_from_a_peft_that_does_not_have_it_is_refused(tmp_path: Path) -> None:
    """PEFT raises a KeyError. (An adapter of a later PEFT is only reported.)"""
    known = {"peft_type": "FOO", "peft_version": "0.21.2"}
    assert "config_refused" in lora(tmp_path / "known", config=known)
    later = {"peft_type": "FOO", "peft_version": "0.22.0"}
    assert not check(open_dir(tiny_lora(tmp_path / "later", config=later)), None).is_blocked


@pytest.mark.parametrize("kind", [None, 3])
def test_a_method_that_is_not_text_is_refused(tmp_path: Path, kind: object) -> None:
    with pytest.raises(InvalidConfig, match="peft_type"):
        check(open_dir(tiny_lora(tmp_path, config={"peft_type": kind})), None)


def test_the_page_of_codes_is_up_to_date() -> None:
    assert (ROOT / "docs" / "checks.md").read_text() == render_page(), (
        "run: python -m adaptry.checks > docs/checks.md"
    )


def test_every_code_has_a_remedy() -> None:
    codes = {**ADAPTER_CODES, **BASE_CODES}
    assert [code for code, entry in codes.items() if not entry.meaning or not entry.remedy] == []
