"""LoRAs that change the model's structure: tied embeddings that are separated, larger vocabularies, more
layers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

import torch
from safetensors.torch import load_file, save_file

from adaptry import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.compute.merging.merge import MergeSource, plan_recipe
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.core.errors import CheckFailed, InvalidConfig, Unsupported

from .lora_merging import IDS, adapted, differing, load, merged, merged_by_peft, save_adapter, save_base

TIED: dict[str, tuple[str, dict[str, Any], bool]] = {
    "the embedding": ("tied", {"target_modules": ["embed_tokens", "q_proj"]}, True),
    "the head": ("tied", {"target_modules": ["lm_head"]}, True),
    "the embedding of GPT-2": ("gpt2", {"target_modules": ["wte"]}, True),
    "both with one update": (
        "tied", {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True}, False),
    "a copy of the embedding": (
        "tied", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, True),
    "a copy of the head": ("tied", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, True),
    "one copy of both": (
        "tied",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        False,
    ),
    "other rows of each": (
        "tied",
        {"target_modules": ["q_proj"],
         "trainable_token_indices": {"embed_tokens": [1, 5], "lm_head": [3, 7]}},
        True,
    ),
    "rows of both": ("tied", {"target_modules": ["q_proj"], "trainable_token_indices": [1, 5, 3]}, False),
}  # fmt: skip


@pytest.mark.parametrize("case", TIED)
def test_a_merge_into_tied_ends_answers_as_the_live_adapter_does(case: str, tmp_path: Path) -> None:
    kind, fields, comes_apart = TIED[case]
    base = save_base(tmp_path / "base", kind)
    adapter = save_adapter(base, tmp_path / "tone", **fields)
    live = adapted(base, adapter)(IDS).logits

    target, record = merged(base, adapter)

    torch.testing.assert_close(load(target)(IDS).logits, live, rtol=1e-4, atol=1e-5)
    config = json.loads((target / "config.json").read_text())
    assert config["tie_word_embeddings"] is not comes_apart
    assert ("lm_head.weight" in load_file(target / "model.safetensors")) is comes_apart
    assert any("a separate head" in note for note in record.notes) is comes_apart


def test_tied_weights_that_were_trained_separately_are_untied(tmp_path: Path) -> None:
    """PEFT ties the factors of both, and on a half-precision base its cast to float32 unties them again."""
    base = save_base(tmp_path / "base", "tied", torch.bfloat16)
    adapter = save_adapter(base, tmp_path / "tone", target_modules=["embed_tokens"], ensure_weight_tying=True)
    live = adapted(base, adapter)(IDS).logits

    target, record = merged(base, adapter)

    torch.testing.assert_close(load(target)(IDS).logits, live, rtol=2e-2, atol=2e-2)
    assert any("a separate head" in note for note in record.notes)


def test_an_embedding_that_is_tied_to_more_than_a_head_is_left_to_peft(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "t5")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    adapter = save_adapter(base, tmp_path / "tone", target_modules=["shared", "q"])

    with pytest.raises(Unsupported, match="changes only the embedding shared, which models of type t5 tie"):
        merged(base, adapter)


GROWN: dict[str, tuple[str, dict[str, Any]]] = {
    "saved embeddings": ("llama", {"target_modules": ["q_proj"]}),
    "saved embeddings of tied ends": ("tied", {"target_modules": ["q_proj"]}),
    "embeddings under a LoRA": ("llama", {"target_modules": ["embed_tokens", "lm_head"]}),
    "whole modules": (
        "llama",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
    "saved embeddings with trained rows": (
        "llama",
        {"target_modules": ["q_proj"], "trainable_token_indices": [5, 97, 98]},
    ),
    "trained rows of both ends": (
        "llama",
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [97], "lm_head": [3, 98]}},
    ),
    "trained rows of tied ends": (
        "tied",
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [97, 98]}},
    ),
}


@pytest.mark.parametrize("case", GROWN)
def test_the_result_has_the_larger_vocabulary_if_requested(case: str, tmp_path: Path) -> None:
    kind, fields = GROWN[case]
    base = save_base(tmp_path / "base", kind, torch.bfloat16)
    adapter = save_adapter(base, tmp_path / "tone", tokens=100, **fields)

    target, record = merged(base, adapter, resize_vocab=True)

    model = load(target)
    assert model.config.vocab_size == 100 == model.get_input_embeddings().weight.shape[0]
    assert not differing(dict(model.state_dict()), merged_by_peft(base, adapter, tokens=100))
    assert record.notes[-1] == "the result has a vocabulary of 100: use tone's tokenizer with it"


@pytest.mark.parametrize("case", GROWN)
def test_a_resized_vocabulary_is_a_finding_that_does_not_block(case: str, tmp_path: Path) -> None:
    kind, fields = GROWN[case]
    base = save_base(tmp_path / "base", kind)
    adapter = save_adapter(base, tmp_path / "tone", tokens=100, **fields)

    report = check(open_dir(adapter), fingerprint(open_checkpoint(base)))

    assert not report.is_blocked, report.sentence()
    assert "vocabulary_resized" in {found.code for found in report.findings}


def test_embeddings_that_peft_looks_for_in_another_wrapper_are_not_merged(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    fields: dict[str, Any] = {"target_modules": ["q_proj"], "trainable_token_indices": [5, 97]}
    adapter = save_adapter(base, tmp_path / "tone", tokens=100, **fields)
    weights = adapter / "adapter_model.safetensors"
    tensors = {
        name.replace(".token_adapter.base", ".base"): each for name, each in load_file(weights).items()
    }
    save_file(tensors, weights)
    live = adapted(base, adapter, tokens=100)
    saved = next(each for name, each in tensors.items() if "embed_tokens.base_layer" in name)
    assert not torch.equal(live.get_input_embeddings().weight[99], saved[99])

    with pytest.raises(
        CheckFailed, match=r"holds its weight as model\.embed_tokens\.token_adapter\.base_layer"
    ):
        merged(base, adapter, resize_vocab=True)


def test_tied_ends_whose_same_rows_are_trained_are_merged_as_peft_does(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "tied")
    rows = {"embed_tokens": [1, 5], "lm_head": [1, 5]}  # PEFT saves them once, for the embedding
    adapter = save_adapter(base, tmp_path / "tone", target_modules=["q_proj"], trainable_token_indices=rows)

    target, _ = merged(base, adapter)

    assert not differing(dict(load(target).state_dict()), merged_by_peft(base, adapter))


def test_a_larger_vocabulary_is_refused_unless_requested(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", tokens=100, target_modules=["q_proj"])

    with pytest.raises(CheckFailed, match=r"with 100 rows, but the base has 96: .* Pass --resize-vocab"):
        merged(base, adapter)


def test_half_of_a_larger_vocabulary_is_refused(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", tokens=100, target_modules=["q_proj"])

    with pytest.raises(Unsupported, match="merged only alone and with weight 1"):
        merged(base, adapter, weight=0.5, resize_vocab=True)


def test_one_end_of_a_larger_vocabulary_is_refused(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(
        base, tmp_path / "tone", tokens=100, target_modules=["q_proj"], modules_to_save=["embed_tokens"]
    )
    weights = adapter / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(weights).items() if "lm_head" not in name}, weights)

    with pytest.raises(CheckFailed, match=r"not for lm_head\.weight"):
        merged(base, adapter, resize_vocab=True)


def test_a_larger_vocabulary_under_a_lora_of_one_end_merges_into_the_base_that_has_it(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", tokens=100, target_modules=["q_proj", "embed_tokens"])
    larger = load(base)
    larger.resize_token_embeddings(100)
    larger.save_pretrained(tmp_path / "larger")

    with pytest.raises(CheckFailed, match="save the base with its larger vocabulary and merge into that"):
        merged(base, adapter, resize_vocab=True)
    target, _ = merged(tmp_path / "larger", adapter)

    live = adapted(tmp_path / "larger", adapter)(IDS).logits
    torch.testing.assert_close(load(target)(IDS).logits, live, rtol=1e-4, atol=1e-5)


def test_replicated_layers_are_separate_layers_with_their_own_updates(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(
        base,
        tmp_path / "tone",
        target_modules=["q_proj", "down_proj"],
        layer_replication=[[0, 2], [0, 1], [1, 2]],
    )
    live = adapted(base, adapter)(IDS).logits
    report = check(open_dir(adapter), fingerprint(open_checkpoint(base)))
    assert [finding.code for finding in report.findings] == ["layers_renumbered"]

    target, _ = merged(base, adapter)

    model = load(target)
    assert model.config.num_hidden_layers == 4
    torch.testing.assert_close(model(IDS).logits, live, rtol=1e-4, atol=1e-5)
    first, copy = (model.model.layers[layer].self_attn.q_proj.weight for layer in (0, 2))
    assert not torch.equal(first, copy)


def test_layers_absent_from_the_base_cannot_be_replicated(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    adapter = save_adapter(base, tmp_path / "tone", target_modules=["q_proj"], layer_replication=[[0, 2]])
    config = json.loads((adapter / "adapter_config.json").read_text())

    for ranges, kind in ([[0, 9]], CheckFailed), ([[2, 1]], InvalidConfig), ("all", InvalidConfig):
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "layer_replication": ranges}))
        with pytest.raises(kind, match="replicat"):
            merged(base, adapter)


def test_adapters_of_different_depth_are_not_merged_together(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama")
    names = ("plain", "deeper")
    for name, ranges in zip(names, (None, [[0, 2], [1, 2]]), strict=True):
        save_adapter(base, tmp_path / name, target_modules=["q_proj"], layer_replication=ranges)

    with pytest.raises(CheckFailed, match=r"plain, deeper were trained on models of different depth"):
        plan_recipe(
            MergeRecipe(base="base", inputs=tuple(RecipeInput(source=name) for name in names)),
            open_checkpoint(base),
            [MergeSource(WeightedAdapter(open_dir(tmp_path / name), 1.0, name)) for name in names],
        )
