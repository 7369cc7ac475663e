"""Findings about adapters that PEFT loads in part, differently from their files, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.checks.binding import bind
from adaptry.core.report import Finding
from adaptry.testing.samples import random_tensor, tiny_base, tiny_lora, write_safetensors

PREFIX = "base_model.model."
FIRST = f"{PREFIX}model.layers.0.self_attn"


@pytest.fixture
def base(tmp_path: Path) -> BaseRecord:
    return fingerprint(open_checkpoint(tiny_base(tmp_path / "base")))


def rename(folder: Path, new: Callable[[str], str]) -> Path:
    """Renames tensors of the adapter in `folder`; new names may have another length."""
    file = folder / "adapter_model.safetensors"
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = {new(name): place for name, place in json.loads(data[8 : 8 + size]).items()}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    return folder


def tokens(folder: Path, config: dict[str, Any]) -> Path:
    """Two trained rows of the embedding."""
    folder.mkdir()
    rows = {f"{PREFIX}model.embed_tokens.trainable_tokens_delta": random_tensor((2, 16), 5)}
    write_safetensors(folder / "adapter_model.safetensors", rows)
    fields = {"peft_type": "TRAINABLE_TOKENS", "task_type": "CAUSAL_LM", **config}
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    return folder


def findings(folder: Path, base: BaseRecord) -> dict[str, Finding]:
    return {found.code: found for found in check(open_dir(folder), base).findings}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (PREFIX, f"{PREFIX}foo."),
        (f"{PREFIX}model.", PREFIX),
        (f"{PREFIX}model.", f"{PREFIX}model.language_model."),
        (PREFIX, f"{PREFIX}_orig_mod."),
        (PREFIX, f"{PREFIX}policy.llm."),
        ("model.layers.", "model._fsdp_wrapped_module.layers."),
        ("self_attn.", "_checkpoint_wrapped_module.self_attn."),
    ],
    ids=[
        "a word more",
        "the body's missing",
        "a vision model's",
        "torch.compile's",
        "a trainer's",
        "FSDP's",
        "checkpointing's",
    ],
)
def test_names_that_the_model_does_not_have_block(
    old: str, new: str, tmp_path: Path, base: BaseRecord
) -> None:
    folder = rename(tiny_lora(tmp_path / "tone"), lambda name: name.replace(old, new, 1))
    found = findings(folder, base)["names_not_loaded"]
    assert found.severity == "blocks"
    assert "the model has model.layers.N.self_attn.q_proj, but no " in found.reason


@pytest.mark.parametrize(
    "start", [f"{PREFIX}model.", PREFIX], ids=["of the model with a head", "of the bare model"]
)
def test_feature_extraction_fits_the_bare_model_of_a_language_model(
    start: str, tmp_path: Path, base: BaseRecord
) -> None:
    """Embedding models are trained with `AutoModel` on a language model's files."""
    folder = tiny_lora(tmp_path / "tone", config={"task_type": "FEATURE_EXTRACTION"})
    rename(folder, lambda name: name.replace(f"{PREFIX}model.", start, 1))
    assert findings(folder, base) == {}


def test_a_config_without_a_class_fits_the_bare_model_with_a_warning(
    tmp_path: Path, base: BaseRecord
) -> None:
    """Compared with PEFT in `tests/methods/test_model_classes.py`."""
    folder = tiny_lora(tmp_path / "tone", config={"task_type": None, "auto_mapping": None})
    assert findings(folder, base) == {}
    rename(folder, lambda name: name.replace(f"{PREFIX}model.", PREFIX, 1))
    found = findings(folder, base)
    assert found.keys() == {"model_class_chosen"}
    assert found["model_class_chosen"].severity == "warns"


def test_only_pefts_own_adapter_name_may_occur_inside_a_tensor_name(tmp_path: Path, base: BaseRecord) -> None:
    own = rename(tiny_lora(tmp_path / "own"), lambda name: name.replace("lora_A.", "lora_A.default."))
    other = rename(tiny_lora(tmp_path / "other"), lambda name: name.replace("lora_A.", "lora_A.foo."))
    assert findings(own, base) == {}
    assert findings(other, base)["no_effect"].severity == "blocks"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"target_modules": ["q_proj"]}, "target_modules does not include it"),
        ({"target_modules": r".*q_proj"}, "target_modules does not include it"),
        ({"exclude_modules": ["v_proj"]}, "exclude_modules excludes it"),
        ({"layers_to_transform": [1]}, "layers_to_transform does not include its layer"),
        ({"modules_to_save": ["self_attn"]}, "modules_to_save lists self_attn"),
    ],
)
def test_tensors_of_modules_that_the_config_excludes_block(
    config: dict[str, Any], reason: str, tmp_path: Path, base: BaseRecord
) -> None:
    found = findings(tiny_lora(tmp_path / "tone", config=config), base)["modules_not_targeted"]
    assert found.severity == "blocks"
    assert reason in found.reason


def test_a_config_that_selects_nothing_is_refused_by_peft(tmp_path: Path, base: BaseRecord) -> None:
    found = findings(tiny_lora(tmp_path / "tone", config={"target_modules": []}), base)
    assert found["peft_refuses"].reason == "the config selects no module (target_modules)"


def test_without_target_modules_pefts_default_list_applies(tmp_path: Path, base: BaseRecord) -> None:
    known = tiny_lora(tmp_path / "known", config={"target_modules": None})
    assert "modules_not_targeted" not in findings(known, base)
    other = tiny_lora(tmp_path / "other", targets=("k_proj",), config={"target_modules": None})
    assert (
        "PEFT's default for this model does not include it"
        in findings(other, base)["modules_not_targeted"].reason
    )


def test_a_weight_beside_a_module_that_is_not_adapted_is_dropped(tmp_path: Path, base: BaseRecord) -> None:
    smuggled = {f"{PREFIX}lm_head.base_layer.weight": random_tensor((32, 16), 5)}
    found = findings(tiny_lora(tmp_path / "tone", extra=smuggled), base)["weights_not_loaded"]
    assert "PEFT does not adapt the module, so it has no base_layer there" in found.reason


def test_a_replaced_weight_of_the_base_is_always_reported(tmp_path: Path, base: BaseRecord) -> None:
    norm = {f"{PREFIX}model.norm.weight": random_tensor((16,), 5)}
    folder = tiny_lora(tmp_path / "tone", extra=norm)
    found = findings(folder, base)
    assert found["base_weight_replaced"].reason == "it replaces model.norm.weight"
    assert "keys_unknown" not in found  # the finding reports that loaders drop it
    assert not check(open_dir(folder), base).is_blocked
    assert [extra.tensor for extra in bind(open_dir(folder), base).module_map.extras] == ["model.norm.weight"]


def test_a_listed_module_that_the_file_lacks_is_refused_by_peft(tmp_path: Path, base: BaseRecord) -> None:
    found = findings(tiny_lora(tmp_path / "tone", config={"modules_to_save": ["lm_head"]}), base)
    assert "the file lacks lm_head.weight" in found["peft_refuses"].reason


def test_a_module_saved_under_its_in_memory_name_blocks(tmp_path: Path, base: BaseRecord) -> None:
    head = {
        f"{PREFIX}lm_head.weight": random_tensor((64, 16), 5),
        f"{PREFIX}lm_head.modules_to_save.default.weight": random_tensor((64, 16), 6),
    }
    folder = tiny_lora(tmp_path / "tone", extra=head, config={"modules_to_save": ["lm_head"]})
    reason = findings(folder, base)["weights_not_loaded"].reason
    assert "lm_head.modules_to_save.default.weight: PEFT looks for a saved module under" in reason


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([1], "lists 1 token row for model.embed_tokens.weight, but the file has 2"),
        ([1, 1], "lists token row 1 twice"),
        ([1, -2], "lists -2 as a token row"),
    ],
)
def test_trained_token_rows_must_be_in_the_file(
    rows: list[int], reason: str, tmp_path: Path, base: BaseRecord
) -> None:
    two = {f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta": random_tensor((2, 16), 5)}
    folder = tiny_lora(tmp_path / "tone", extra=two, config={"trainable_token_indices": rows})
    assert reason in findings(folder, base)["peft_refuses"].reason


def test_an_embedding_cannot_be_adapted_and_have_trained_rows(tmp_path: Path, base: BaseRecord) -> None:
    two = {f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta": random_tensor((2, 16), 5)}
    config = {"trainable_token_indices": [1, 2], "target_modules": ["q_proj", "v_proj", "embed_tokens"]}
    found = findings(tiny_lora(tmp_path / "tone", extra=two, config=config), base)["peft_refuses"]
    assert "adapts model.embed_tokens (target_modules) and also trains token rows of it" in found.reason


def test_trained_tokens_without_listed_indices_are_refused_by_peft(tmp_path: Path, base: BaseRecord) -> None:
    folder = tokens(tmp_path / "tokens", {"target_modules": ["embed_tokens"]})
    reason = findings(folder, base)["peft_refuses"].reason
    assert "lists 0 token rows for model.embed_tokens.weight, but the file has 2" in reason


def test_a_method_without_saved_modules_ignores_their_names(tmp_path: Path, base: BaseRecord) -> None:
    config = {"token_indices": [1, 2], "target_modules": ["embed_tokens"], "modules_to_save": ["lm_head"]}
    report = check(open_dir(tokens(tmp_path / "tokens", config)), base)
    assert {"peft_refuses", "saved_modules_without_tensors"}.isdisjoint(one.code for one in report.findings)


def test_trained_tokens_of_a_module_that_the_model_does_not_have_are_refused(
    tmp_path: Path, base: BaseRecord
) -> None:
    folder = tokens(tmp_path / "tokens", {"token_indices": [1, 2], "target_modules": ["embeddings"]})
    assert "target_modules selects no module" in findings(folder, base)["peft_refuses"].reason
    head = tokens(tmp_path / "head", {"token_indices": [1, 2], "target_modules": ["lm_head"]})
    assert "target_modules does not include it" in findings(head, base)["weights_not_loaded"].reason


def test_a_tensor_without_elements_is_refused_by_peft(tmp_path: Path, base: BaseRecord) -> None:
    empty = {f"{FIRST}.q_proj.lora_B.weight": ("F32", (0, 4), b"")}
    found = findings(tiny_lora(tmp_path / "tone", extra=empty), base)["peft_refuses"]
    assert "1 tensor has no elements: " in found.reason


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"peft_type": "lora"}, "peft_type is 'lora'; PEFT requires 'LORA'"),
        ({"lora_alpha": None}, "lora_alpha is null, but must be a number"),
        ({"init_lora_weights": "foo"}, "PEFT does not know init_lora_weights 'foo'"),
    ],
)
def test_values_that_peft_refuses_block(
    config: dict[str, Any], reason: str, tmp_path: Path, base: BaseRecord
) -> None:
    assert findings(tiny_lora(tmp_path / "tone", config=config), base)["config_refused"].reason == reason


@pytest.mark.parametrize(
    ("config", "what"), [({"use_dora": True}, "magnitudes"), ({"lora_bias": True}, "biases of lora_B")]
)
def test_weights_that_the_config_declares_and_the_file_lacks_block(
    config: dict[str, Any], what: str, tmp_path: Path, base: BaseRecord
) -> None:
    found = findings(tiny_lora(tmp_path / "tone", config=config), base)["tensors_missing"]
    assert found.severity == "blocks" and what in found.reason


def test_a_layer_that_starts_at_random_values_blocks(tmp_path: Path, base: BaseRecord) -> None:
    half = tiny_lora(tmp_path / "tone", layers=1, config={"init_lora_weights": False})
    assert findings(half, base)["layers_random"].severity == "blocks"


@pytest.mark.parametrize("key", ["target_modules", "exclude_modules"])
def test_a_pattern_that_peft_could_not_finish_blocks(key: str, tmp_path: Path, base: BaseRecord) -> None:
    folder = tiny_lora(tmp_path / "tone", config={key: r"(?!(?:[\w.]+)+!)x"})
    assert findings(folder, base)["pattern_refused"].severity == "blocks"
