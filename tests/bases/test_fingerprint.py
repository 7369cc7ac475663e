"""What a base's id depends on, and what does not affect it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.errors import Invalid
from adaptry.testing.samples import Tensors, random_tensor, tiny_base, write_safetensors


def record_of(folder: Path) -> BaseRecord:
    return fingerprint(open_checkpoint(folder))


def tensors_of(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """The tensors of a base, from all of its files."""
    checkpoint = open_checkpoint(folder)
    found = {}
    for name, info in checkpoint.tensors.items():
        data = checkpoint.path_of(name).read_bytes()[info.start : info.end]
        found[name] = (info.dtype, info.shape, data)
    return found


def rewritten(
    folder: Path,
    to: Path,
    tensors: Tensors | None = None,
    config: Callable[[dict[str, Any]], object] | None = None,
) -> Path:
    """A copy of a base with other tensors in its file, or with its config changed."""
    shutil.copytree(folder, to)
    fields = json.loads((to / "config.json").read_text())
    if config:
        config(fields)
    (to / "config.json").write_text(json.dumps(fields))
    if tensors is not None:
        write_safetensors(to / "model.safetensors", tensors)
    return to


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "base")


def test_the_id_does_not_depend_on_sharding(base: Path, tmp_path: Path) -> None:
    sharded = tiny_base(tmp_path / "sharded", shards=3)
    assert record_of(sharded) == record_of(base)


def test_the_id_does_not_depend_on_key_order_or_file_metadata(base: Path, tmp_path: Path) -> None:
    backwards = rewritten(base, tmp_path / "backwards", dict(reversed(tensors_of(base).items())))
    assert record_of(backwards).id == record_of(base).id


def test_the_id_does_not_depend_on_the_task_models_prefix(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", tied=True)
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors_of(base).items()}
    renamed = rewritten(
        base, tmp_path / "bare", bare, lambda config: config.update(architectures=["LlamaModel"])
    )
    assert record_of(renamed).id == record_of(base).id
    assert record_of(renamed).architecture == record_of(base).architecture


def test_buffers_that_older_tools_saved_do_not_count(base: Path, tmp_path: Path) -> None:
    more = tensors_of(base) | {"model.layers.0.self_attn.rotary_emb.inv_freq": random_tensor((4,), 1)}
    assert record_of(rewritten(base, tmp_path / "old", more)).id == record_of(base).id


def test_a_tied_heads_copy_does_not_count(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", tied=True)
    tensors = tensors_of(base)
    copied = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    assert record_of(rewritten(base, tmp_path / "copied", copied)).id == record_of(base).id


def test_a_head_that_differs_from_the_embedding_counts_although_the_config_ties_it(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", tied=True)
    other = tensors_of(base) | {"lm_head.weight": random_tensor((32, 16), 77)}
    assert record_of(rewritten(base, tmp_path / "other", other)).id != record_of(base).id


@pytest.mark.parametrize(
    "respell",
    [
        lambda config: config.update(dtype=config.pop("torch_dtype")),
        lambda config: config.update(head_dim=8),
        lambda config: config.pop("num_key_value_heads"),
        lambda config: config.pop("tie_word_embeddings"),
        lambda config: config.update(rope_theta=10000.0, rope_scaling=None),
        lambda config: config.update(rope_parameters={"rope_theta": 10000.0, "rope_type": "default"}),
        lambda config: config.update(transformers_version="4.40.0", use_cache=False, _name_or_path="x"),
    ],
    ids=["dtype", "head_dim", "kv_heads", "tying", "rope of 4", "rope of 5", "bookkeeping"],
)
def test_the_id_does_not_depend_on_how_the_config_is_spelled(
    base: Path, tmp_path: Path, respell: Callable[[dict[str, Any]], object]
) -> None:
    assert record_of(rewritten(base, tmp_path / "respelled", config=respell)).id == record_of(base).id


def test_scaled_rope_has_one_fingerprint_in_both_spellings(base: Path, tmp_path: Path) -> None:
    scaling = {"factor": 8.0, "original_max_position_embeddings": 64}
    four = rewritten(
        base,
        tmp_path / "four",
        config=lambda config: config.update(rope_theta=5e5, rope_scaling={"type": "linear", **scaling}),
    )
    five = rewritten(
        base,
        tmp_path / "five",
        config=lambda config: config.update(
            rope_parameters={"rope_theta": 500000, "rope_type": "linear", **scaling}
        ),
    )
    assert record_of(four).id == record_of(five).id != record_of(base).id


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(num_attention_heads=4, num_key_value_heads=4),
        lambda config: config.update(rope_theta=20000.0),
        lambda config: config.update(rms_norm_eps=1e-6),
    ],
    ids=["heads", "rope", "eps"],
)
def test_config_values_not_visible_in_shapes_are_part_of_the_id(
    base: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    changed = record_of(rewritten(base, tmp_path / "changed", config=change))
    assert changed.id != record_of(base).id
    assert changed.architecture == record_of(base).architecture


def test_other_weights_are_another_base_of_the_same_architecture(base: Path, tmp_path: Path) -> None:
    retrained = record_of(tiny_base(tmp_path / "retrained", seed=1))
    assert retrained.id != record_of(base).id
    assert retrained.architecture == record_of(base).architecture


def test_a_folder_with_only_buffers_is_not_a_base(base: Path, tmp_path: Path) -> None:
    empty = rewritten(base, tmp_path / "empty", {"rotary_emb.inv_freq": random_tensor((4,), 1)})
    with pytest.raises(Invalid, match="no weights"):
        record_of(empty)


def test_a_tokenizer_is_the_same_for_both_spellings_of_its_merges(base: Path, tmp_path: Path) -> None:
    tokenizer = {
        "truncation": None,
        "added_tokens": [{"id": 2, "content": "<s>", "special": True}],
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 3}, "merges": ["a b"]},
    }
    newer = {
        **tokenizer,
        "truncation": {"max_length": 8},
        "model": {**tokenizer["model"], "merges": [["a", "b"]]},
    }
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    other = rewritten(base, tmp_path / "newer")
    (other / "tokenizer.json").write_text(json.dumps(newer))
    assert record_of(other).tokenizer == record_of(base).tokenizer is not None


def test_an_unreadable_tokenizer_does_not_stop_a_base(base: Path) -> None:
    (base / "tokenizer.json").write_text("{")
    assert record_of(base).tokenizer is None
