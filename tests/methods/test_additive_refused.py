"""Methods that add an update to a weight: broken files and wrong bases are reported and never merged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry import open_dir
from adaptry.core.errors import AdaptryError, CheckFailed, InvalidWeights

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from .additive import pair_of  # noqa: E402  (needs torch and PEFT)
from .on_base import Pair  # noqa: E402  (needs torch and PEFT)

# One tensor of each method without which a module, or the whole file, has no meaning.
NEEDED = {
    "adalora": "q_proj.lora_E",
    "loha": "q_proj.hada_w2_b",
    "lokr": "q_proj.lokr_w1",
    "lokr of factors": "q_proj.lokr_w1_b",
    "vera": "q_proj.vera_lambda_b",
    "vera of projections": "vera_A",
    "pvera": "pvera_A",
    "vblora": "vector_bank",
    "vblora of choices": "q_proj.vblora_logits_A_topk_weights",
    "randlora": "q_proj.randlora_gamma",
    "randlora of bases": "base_model.randlora_A",
    "delora": "q_proj.delora_w_norm",
    "gralora hybrid": "q_proj.gralora_B_general.weight",
    "tinylora": "q_proj.tinylora_P",
    "unilora": "q_proj.unilora_scales_B",
    "unilora of numbers": "theta_d",
    "shira": "q_proj.shira_indices",
    "supertuning": "q_proj.supertuning_indices",
    "supertuning with lora": "q_proj.supertuning_lora_B.weight",
}
# The case that each of the above breaks, if its name differs.
CASE_OF = {"vera of projections": "vera", "randlora of bases": "randlora", "unilora of numbers": "unilora"}


def first(tensors: dict[str, Any], end: str) -> str:
    return min(name for name in tensors if name.endswith(end))


def assert_refused(pair: Pair, error: type[AdaptryError] = CheckFailed, match: str | None = None) -> None:
    """Asserts that a merge raises an error and leaves nothing behind."""
    with pytest.raises(error, match=match):
        pair.merged()
    assert not (pair.adapter.parent / "merged").exists()


@pytest.mark.parametrize("name", NEEDED)
def test_a_file_without_one_of_its_tensors_is_reported_and_never_merged(tmp_path: Path, name: str) -> None:
    pair = pair_of(tmp_path, CASE_OF.get(name, name))
    pair.rewrite(lambda tensors: tensors.pop(first(tensors, NEEDED[name])))
    assert {"keys_dropped", "tensors_missing", "no_effect", "config_mismatch"} & set(pair.findings())
    assert_refused(pair)


MATRICES = {
    "adalora": "q_proj.lora_A", "loha": "v_proj.hada_w1_a", "lokr": "q_proj.lokr_w2_a", "vera": "vera_A",
    "pvera": "pvera_A", "vblora": "v_proj.vblora_logits_B", "randlora": "q_proj.randlora_gamma",
    "miss": "v_proj.miss_block", "delora": "q_proj.delora_A", "gralora": "q_proj.gralora_A",
    "tinylora": "v_proj.tinylora_B", "unilora": "v_proj.unilora_indices_B", "c3a": "v_proj.c3a_kernel",
    "shira": "q_proj.shira_indices", "supertuning with lora": "v_proj.supertuning_lora_B.weight",
}  # fmt: skip


@pytest.mark.parametrize("name", MATRICES)
def test_a_transposed_tensor_is_reported_and_never_merged(tmp_path: Path, name: str) -> None:
    pair = pair_of(tmp_path, name)

    def turn(tensors: dict[str, Any]) -> None:
        key = first(tensors, MATRICES[name])
        tensors[key] = tensors[key].transpose(0, -1)

    pair.rewrite(turn)
    assert {"keys_dropped", "no_effect", "shape_mismatch", "config_mismatch"} & set(pair.findings())
    assert_refused(pair)


# The config field that determines the size of a tensor, and another value for it.
NUMBERS = {
    "adalora": ("init_r", 2), "loha": ("r", 7), "lokr": ("r", 7), "vera": ("r", 12), "pvera": ("r", 12),
    "vblora": ("r", 6), "vblora of choices": ("topk", 4), "randlora": ("r", 10),
    "fourierft": ("n_frequency", 60), "waveft": ("n_frequency", 60), "miss": ("r", 16),
    "miss mini": ("mini_r", 8), "miss bat": ("r", 4), "delora": ("r", 8), "gralora": ("gralora_k", 4),
    "gralora hybrid": ("hybrid_r", 4), "tinylora": ("u", 9), "unilora": ("theta_d_length", 64),
    "c3a": ("block_size", 4), "shira": ("r", 4), "supertuning": ("sparsity", 0.8),
    "supertuning with lora": ("r", 4),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_a_config_with_other_sizes_is_reported_and_never_merged(tmp_path: Path, name: str) -> None:
    pair = pair_of(tmp_path, name)
    field, value = NUMBERS[name]
    pair.configure(**{field: value})
    assert {"keys_dropped", "no_effect", "shape_mismatch", "config_mismatch"} & set(pair.findings())
    assert_refused(pair)


OTHER_BASES = ["vera", "pvera", "randlora", "shira", "supertuning", "miss mini", "miss bat", "fourierft"]


@pytest.mark.parametrize("name", OTHER_BASES)
def test_a_base_of_other_sizes_is_detected_by_its_shapes(tmp_path: Path, name: str) -> None:
    pair = pair_of(tmp_path, name)
    config = transformers.LlamaConfig(
        hidden_size=6, intermediate_size=90, num_hidden_layers=2, num_attention_heads=1, vocab_size=8,
        attention_bias=True, mlp_bias=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(pair.base)
    assert "shape_mismatch" in pair.findings()
    assert_refused(pair)


def _far(tensors: dict[str, Any], end: str) -> None:
    tensors[first(tensors, end)].view(-1)[-1] = 10_000


BEYOND: dict[str, Callable[[dict[str, Any]], None]] = {
    "shira": lambda tensors: _far(tensors, "shira_indices"),
    "supertuning": lambda tensors: _far(tensors, "supertuning_indices"),
    "unilora": lambda tensors: _far(tensors, "unilora_indices_A"),
}


@pytest.mark.parametrize("name", BEYOND)
def test_a_position_beyond_the_weight_ends_the_merge_with_the_modules_name(tmp_path: Path, name: str) -> None:
    pair = pair_of(tmp_path, name)
    pair.rewrite(BEYOND[name])
    assert_refused(
        pair,
        InvalidWeights,
        r"model\.layers\.0\.mlp\.down_proj (changes elements beyond|has indices outside)",
    )


def test_a_tinylora_with_foreign_matrices_is_refused(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, "tinylora in groups")

    def other(tensors: dict[str, Any]) -> None:
        key = first(tensors, "q_proj.tinylora_P")
        tensors[key] = torch.randn(tensors[key].shape, generator=torch.Generator().manual_seed(5))

    pair.rewrite(other)
    assert_refused(pair, InvalidWeights, "match none of its possible positions among the adapter's modules")


def test_a_tensor_that_matches_no_rule_stays_unclaimed(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, "miss")
    pair.rewrite(lambda tensors: tensors.update({"base_model.model.norm.miss_scale": torch.ones(2)}))
    assert open_dir(pair.adapter).spec.unclaimed == ("base_model.model.norm.miss_scale",)
    assert_refused(pair)


def test_random_bases_that_are_too_few_are_reported_and_never_merged(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, "randlora")

    def cut(tensors: dict[str, Any]) -> None:
        for key in [name for name in tensors if name.endswith("randlora_B")]:
            tensors[key] = tensors[key][:, :1].contiguous()

    pair.rewrite(cut)
    assert "config_mismatch" in pair.findings()
    assert_refused(pair)


@pytest.mark.parametrize(
    ("name", "end", "side"),
    [
        ("pvera from a seed", "q_proj.pvera_lambda_d", 0),
        ("gralora hybrid", "q_proj.gralora_A_general.weight", 1),
        ("gralora hybrid", "q_proj.gralora_B_general.weight", 0),
    ],
)
def test_a_tensor_of_another_size_is_reported_and_never_merged(
    tmp_path: Path, name: str, end: str, side: int
) -> None:
    pair = pair_of(tmp_path, name)

    def lengthen(tensors: dict[str, Any]) -> None:
        key = first(tensors, end)
        tensors[key] = torch.cat([tensors[key], tensors[key].narrow(side, 0, 1)], side)

    pair.rewrite(lengthen)
    assert {"keys_dropped", "config_mismatch"} & set(pair.findings())
    assert_refused(pair)
