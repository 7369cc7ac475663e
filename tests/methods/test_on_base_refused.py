"""Methods that read the base's weight: broken files and unsupported cases are reported and never merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adaptry.core.errors import AdaptryError, CheckFailed, InvalidConfig, InvalidWeights, Unsupported

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("transformers")

from safetensors.torch import save_file  # noqa: E402  (needs torch)

from .on_base import Pair, pair_of  # noqa: E402  (needs torch and PEFT)

HALVES = {
    "boft": "boft_s", "road_1": "road_alpha", "hira": "hira_B", "glora": "glora_C.Xu", "deft": "deft_R",
    "peanut deep": "peanut_encoders.1.weight", "osf": "S_low", "psoft": "vector_b", "frod": "lambda_s_values",
}  # fmt: skip
NARROW = {
    "oft": "oft_R.weight", "boft": "boft_R", "hra": "hra_u", "road_1": "road_theta", "hira": "hira_A",
    "glora": "glora_A.Xd", "beft": "beft_bias", "deft": "deft_P", "peanut": "peanut_A.weight", "osf": "V_low",
    "psoft": "psoft_R.weight", "frod": "lambda_l", "ln_tuning": "ln_tuning_layers.weight",
    "ia3": "q_proj.ia3_l",
}  # fmt: skip


def _first(tensors: dict[str, Any], end: str) -> str:
    return min(name for name in tensors if name.endswith(end))


@pytest.mark.parametrize("name", HALVES)
def test_a_module_without_one_of_its_tensors_is_found_and_never_merged(tmp_path: Path, name: str) -> None:
    pair = pair_of(tmp_path, name)
    pair.rewrite(lambda tensors: tensors.pop(_first(tensors, HALVES[name])))

    assert "keys_dropped" in pair.findings()
    with pytest.raises(CheckFailed, match="PEFT would silently drop"):
        pair.merged()
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("name", NARROW)
def test_a_truncated_tensor_is_never_merged(tmp_path: Path, name: str) -> None:
    def cut(tensors: dict[str, Any]) -> None:
        key = _first(tensors, NARROW[name])
        longest = max(range(tensors[key].dim()), key=lambda side: tensors[key].shape[side])
        tensors[key] = tensors[key].narrow(longest, 0, tensors[key].shape[longest] - 1)

    pair = pair_of(tmp_path, name)
    pair.rewrite(cut)

    with pytest.raises(AdaptryError):
        pair.merged()
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("name", ["oft", "hra", "beft", "psoft"])
def test_a_layer_without_tensors_is_reported(tmp_path: Path, name: str) -> None:
    pair = pair_of(tmp_path, name)

    def forget(tensors: dict[str, Any]) -> None:
        for key in [key for key in tensors if ".layers.0." in key]:
            del tensors[key]

    pair.rewrite(forget)
    assert "layers_uncovered" in pair.findings()


def test_frod_without_the_projection_of_one_kind_is_refused_by_its_name(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, "frod")
    pair.rewrite(lambda tensors: tensors.pop("base_model.frod_V.self_attn_v_proj"))

    with pytest.raises(InvalidWeights, match=r"frod_V\.self_attn_v_proj"):
        pair.merged()
    assert not (tmp_path / "merged").exists()


def test_beft_needs_a_bias_in_the_base(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "tied", peft.BeftConfig(target_modules=["mlp.up_proj"]))
    weights = {name: tensor for name, tensor in pair.base_weights().items() if "up_proj.bias" not in name}
    save_file(weights, pair.base / "model.safetensors")

    with pytest.raises(Unsupported, match=r"no model\.layers\.0\.mlp\.up_proj\.bias"):
        pair.merged()


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("oft", {"peft_version": "0.17.1"}, "before 0.18"),
        ("oft", {"peft_version": None}, "before 0.18"),
        ("frod", {"save_projection": False}, "save_projection to true"),
        ("peanut", {"act_fn": "quick_gelu"}, "quick_gelu"),
        ("deft", {"decomposition_method": "svd"}, "svd"),
    ],
)
def test_unsupported_variants_are_refused_with_a_remedy(
    tmp_path: Path, name: str, fields: dict[str, Any], reason: str
) -> None:
    pair = pair_of(tmp_path, name)
    pair.configure(**fields)
    with pytest.raises(Unsupported, match=reason):
        pair.merged()


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("ia3", {"feedforward_modules": "((("}, "is not a pattern"),
        ("ia3", {"feedforward_modules": r"(?!x)([\w.]+)+!"}, "take hours"),
        ("oft", {"num_cayley_neumann_terms": 10**12}, "num_cayley_neumann_terms must be"),
        ("psoft", {"use_cayley_neumann": True, "num_cayley_neumann_terms": 10**12},
         "num_cayley_neumann_terms must be"),
    ],
)  # fmt: skip
def test_a_config_that_would_fail_or_never_end_is_refused(
    tmp_path: Path, name: str, fields: dict[str, Any], reason: str
) -> None:
    pair = pair_of(tmp_path, name)
    pair.configure(**fields)

    with pytest.raises(InvalidConfig, match=reason):
        pair.merged()
    assert not (tmp_path / "merged").exists()


def test_tokens_outside_the_vocabulary_are_reported(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, "trainable_tokens")
    pair.configure(token_indices=[3, 1, 96])
    assert "token_outside_vocabulary" in pair.findings()
    with pytest.raises(CheckFailed, match="token 96"):
        pair.merged()
