"""Findings about an adapter on its base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.core.report import CheckReport, Finding
from adaptry.testing.samples import random_tensor, tiny_base, tiny_lora, write_safetensors

EMBED = "base_model.model.model.embed_tokens"


def base(folder: Path, **options: Any) -> BaseRecord:
    return fingerprint(open_checkpoint(tiny_base(folder / "base", **options)))


def report(folder: Path, record: BaseRecord, **options: Any) -> CheckReport:
    return check(open_dir(tiny_lora(folder / "adapter", **options)), record)


def found(folder: Path, record: BaseRecord, **options: Any) -> dict[str, Finding]:
    return {finding.code: finding for finding in report(folder, record, **options).findings}


def pair(path: str, fan_in: int, fan_out: int, rank: int = 4) -> dict[str, Any]:
    """The two factors of one more module."""
    return {
        f"base_model.model.{path}.lora_A.weight": random_tensor((rank, fan_in), 50),
        f"base_model.model.{path}.lora_B.weight": random_tensor((fan_out, rank), 51),
    }


def test_an_adapter_fits_its_base(tmp_path: Path) -> None:
    assert report(tmp_path, base(tmp_path), targets=("q_proj", "v_proj", "down_proj")).findings == ()


def test_an_adapter_of_an_unknown_method_is_checked_without_an_error(tmp_path: Path) -> None:
    codes = found(tmp_path, base(tmp_path), config={"peft_type": "BRANDNEW", "peft_version": "99.0"})

    assert set(codes) == {"method_not_described", "newer_peft"}


def test_another_width_is_reported_once_for_each_kind_of_module(tmp_path: Path) -> None:
    finding = found(tmp_path, base(tmp_path, hidden=32))["shape_mismatch"]
    assert finding.severity == "blocks"
    assert "q_proj takes 16 inputs, but this base's weight has 32 (2 modules)" in finding.reason
    assert len(finding.modules) == 4


def test_an_adapter_for_another_base_gives_few_findings(tmp_path: Path) -> None:
    assert set(found(tmp_path, base(tmp_path, hidden=32, layers=1), layers=40)) == {
        "module_missing",
        "shape_mismatch",
    }


def test_layers_that_the_base_does_not_have_are_counted(tmp_path: Path) -> None:
    finding = found(tmp_path, base(tmp_path, layers=2), layers=5)["module_missing"]
    assert "it adapts layers 2 to 4, but the base has 2 layers (0 to 1)" in finding.reason


def test_another_architecture_is_reported_with_the_modules_of_both(tmp_path: Path) -> None:
    record = base(tmp_path)
    other = {
        name.replace("model.layers", "transformer.h").replace("self_attn.q_proj", "attn.c_attn"): tensor
        for name, tensor in record.tensors.items()
        if "q_proj" in name
    }
    finding = found(tmp_path, record.model_copy(update={"tensors": other}))["module_missing"]
    assert "model.layers.N.self_attn.q_proj" in finding.reason
    assert "transformer.h.N.attn.c_attn.weight" in finding.reason


def test_a_name_that_could_mean_several_weights_blocks(tmp_path: Path) -> None:
    record = base(tmp_path)
    two = {
        f"{tower}.{name}": tensor for name, tensor in record.tensors.items() for tower in ("left", "right")
    }
    finding = found(tmp_path, record.model_copy(update={"tensors": two}))["module_ambiguous"]
    assert "it matches several weights: left.model.layers.0" in finding.reason


def test_a_different_declared_base_is_a_warning(tmp_path: Path) -> None:
    adapter = open_dir(tiny_lora(tmp_path / "adapter", base_name="org/other"))
    result = check(adapter, base(tmp_path), "org/tiny")
    assert [finding.code for finding in result.findings] == ["base_name_differs"]
    assert result.base == "org/tiny"


def test_a_folder_as_declared_base_gives_no_finding(tmp_path: Path) -> None:
    adapter = open_dir(tiny_lora(tmp_path / "adapter", base_name="/data/base"))
    assert check(adapter, base(tmp_path), "org/tiny").findings == ()


def test_a_layer_missing_from_the_file_is_a_warning(tmp_path: Path) -> None:
    finding = found(tmp_path, base(tmp_path, layers=4), layers=3)["layers_uncovered"]
    assert "in layer 3" in finding.reason
    assert finding.severity == "warns"


def test_a_deliberately_omitted_layer_gives_no_finding(tmp_path: Path) -> None:
    assert (
        found(tmp_path, base(tmp_path, layers=4), layers=3, config={"layers_to_transform": [0, 1, 2]}) == {}
    )


def test_a_pattern_is_matched_as_peft_matches_it(tmp_path: Path) -> None:
    pattern = {"target_modules": r"model\.layers\.\d+\.self_attn\.[qvk]_proj"}
    finding = found(tmp_path, base(tmp_path), config=pattern)["layers_uncovered"]
    assert set(finding.modules) == {f"model.layers.{layer}.self_attn.k_proj" for layer in (0, 1)}


def test_saved_embeddings_with_more_rows_are_a_resized_vocabulary(tmp_path: Path) -> None:
    rows = {f"{EMBED}.weight": random_tensor((40, 16), 5)}
    assert (
        "40 rows, but the base has 32"
        in found(tmp_path, base(tmp_path), extra=rows)["vocabulary_resized"].reason
    )


def test_saved_embeddings_of_another_width_block(tmp_path: Path) -> None:
    rows = {f"{EMBED}.weight": random_tensor((32, 8), 5)}
    assert found(tmp_path, base(tmp_path), extra=rows)["extra_shape"].severity == "blocks"


def test_an_embedding_update_for_another_vocabulary_blocks(tmp_path: Path) -> None:
    factors = {
        f"{EMBED}.lora_embedding_A": random_tensor((4, 40), 5),
        f"{EMBED}.lora_embedding_B": random_tensor((16, 4), 6),
    }
    targets = {"target_modules": ["q_proj", "v_proj", "embed_tokens"]}
    finding = found(tmp_path, base(tmp_path), extra=factors, config=targets)["shape_mismatch"]
    assert "embed_tokens takes 40 inputs, but this base's weight has 32" in finding.reason


@pytest.mark.parametrize(("token", "codes"), [(31, set()), (32, {"token_outside_vocabulary"})])
def test_a_trained_token_must_be_in_the_vocabulary(tmp_path: Path, token: int, codes: set[str]) -> None:
    rows = {f"{EMBED}.token_adapter.trainable_tokens_delta": random_tensor((1, 16), 5)}
    config = {"trainable_token_indices": {"embed_tokens": [token]}}
    assert set(found(tmp_path, base(tmp_path), extra=rows, config=config)) == codes


@pytest.mark.parametrize(
    ("task", "code", "severity"),
    [
        ("SEQ_CLS", "new_head", "notes"),
        (None, "new_head", "notes"),
        ("CAUSAL_LM", "saved_module_dropped", "warns"),
        ("FEATURE_EXTRACTION", "saved_module_dropped", "warns"),
    ],
)
def test_a_separate_head_is_noted_and_one_that_the_tasks_class_lacks_is_dropped(
    task: str | None, code: str, severity: str, tmp_path: Path
) -> None:
    head = {"base_model.model.score.weight": random_tensor((2, 16), 5)}
    config = {"modules_to_save": ["score"], "task_type": task}
    findings = found(tmp_path, base(tmp_path), extra=head, config=config)
    assert findings[code].severity == severity


def test_a_bias_that_the_base_does_not_have_blocks(tmp_path: Path) -> None:
    bias = {"base_model.model.model.layers.0.self_attn.q_proj.base_layer.bias": random_tensor((16,), 5)}
    findings = found(tmp_path, base(tmp_path), extra=bias, config={"bias": "lora_only"})
    assert findings["extra_missing"].severity == "blocks"


def test_a_trained_bias_without_a_matching_weight_cannot_be_merged(tmp_path: Path) -> None:
    bias = {"base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias": random_tensor((16,), 5)}
    assert "bias_without_place" in found(tmp_path, base(tmp_path), extra=bias, config={"lora_bias": True})


def test_a_target_on_tied_embeddings_is_a_warning(tmp_path: Path) -> None:
    targets = {"target_modules": ["q_proj", "v_proj", "lm_head"]}
    findings = found(tmp_path, base(tmp_path, tied=True), extra=pair("lm_head", 16, 32), config=targets)
    assert set(findings) == {"tied_embeddings"}


def test_an_untied_head_is_a_module_like_any_other(tmp_path: Path) -> None:
    targets = {"target_modules": ["q_proj", "v_proj", "lm_head"]}
    assert found(tmp_path, base(tmp_path), extra=pair("lm_head", 16, 32), config=targets) == {}


def test_a_quantised_base_is_served_and_not_merged(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "base")
    checkpoint = open_checkpoint(folder)
    tensors = {}
    for name, info in checkpoint.tensors.items():
        if "_proj" in name:
            tensors[name.replace(".weight", ".qweight")] = ("I32", (2, 16), bytes(128))
        else:
            tensors[name] = (info.dtype, info.shape, bytes(info.size))
    write_safetensors(folder / "model.safetensors", tensors)
    findings = found(tmp_path, fingerprint(open_checkpoint(folder)))
    assert {code: finding.severity for code, finding in findings.items()} == {"base_quantised": "warns"}
    assert "qweight" in findings["base_quantised"].reason


def test_replicated_layers_are_checked_as_layers_of_the_deeper_model(tmp_path: Path) -> None:
    twice = {"layer_replication": [[0, 2], [0, 2]]}
    assert set(found(tmp_path, base(tmp_path), layers=4, config=twice)) == {"layers_renumbered"}


def test_an_adapter_of_replicated_layers_may_not_fit_them(tmp_path: Path) -> None:
    twice = {"layer_replication": [[0, 2], [0, 2]]}
    record = base(tmp_path)
    assert "shape_mismatch" in found(tmp_path / "wide", record, layers=4, hidden=32, config=twice)
    assert (
        "layers 4 and 5" in found(tmp_path / "deep", record, layers=6, config=twice)["module_missing"].reason
    )
    assert (
        "layers 2 and 3"
        in found(tmp_path / "short", record, layers=2, config=twice)["layers_uncovered"].reason
    )

    beyond = found(tmp_path / "beyond", record, layers=3, config={"layer_replication": [[0, 3]]})
    assert beyond["peft_refuses"].severity == "blocks"


def test_a_report_is_unchanged_by_serialisation(tmp_path: Path) -> None:
    result = report(tmp_path, base(tmp_path, hidden=32))
    assert CheckReport.model_validate(json.loads(result.model_dump_json())) == result
    assert result.is_blocked
