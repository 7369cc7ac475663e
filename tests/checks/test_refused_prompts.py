"""Configs of soft prompts that PEFT refuses because a number is missing or the file has other sizes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
from safetensors.torch import load_file, save_file
from tests.methods.corpus import Made, cases, make
from tests.methods.families import FAMILIES

from adaptry import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.core.errors import InvalidConfig

PROMPTS = ("prompt_tuning", "p_tuning", "multitask_prompt_tuning", "cpt", "prefix_tuning", "cartridge")
VALUES = {
    "num_virtual_tokens": (None, -1, 0, 4, 5),
    "num_transformer_submodules": (None, -1, 0, 1, 2),
    "token_dim": (None, -1, 0, 8),
    "num_layers": (None, -1, 0, 1),
}
"""(None: null.)"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


def made_by_peft(method: str, corpus: Path) -> Made:
    return make(next(iter(cases([method], ["llama"], ["fp32"]))), corpus)


def is_refused(made: Made, adapter: Path) -> tuple[bool, bool]:
    """Whether PEFT refuses it, and whether we block it."""
    try:
        ours = check(open_dir(adapter), fingerprint(open_checkpoint(made.base))).is_blocked
    except InvalidConfig:
        ours = True
    try:
        peft.PeftModel.from_pretrained(FAMILIES["llama"].load(made.base), adapter)
    except (KeyError, RuntimeError, TypeError, ValueError):
        return True, ours
    return False, ours


def edited(made: Made, folder: Path, fields: dict[str, Any]) -> Path:
    """(`Any`: JSON.)"""
    shutil.copytree(made.adapter, folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return folder


@pytest.mark.parametrize("field", VALUES)
@pytest.mark.parametrize("method", PROMPTS)
def test_a_number_that_does_not_fit_the_file_is_reported(
    method: str, field: str, corpus: Path, tmp_path: Path
) -> None:
    made = made_by_peft(method, corpus)
    answers = {
        value: is_refused(made, edited(made, tmp_path / str(value), {field: value}))
        for value in VALUES[field]
    }
    missed = [value for value, (theirs, ours) in answers.items() if theirs and not ours]
    assert missed == []


@pytest.mark.parametrize("method", PROMPTS)
def test_a_config_without_the_number_of_virtual_tokens_is_reported(
    method: str, corpus: Path, tmp_path: Path
) -> None:
    made = made_by_peft(method, corpus)
    adapter = edited(made, tmp_path / "tone", {})
    fields = json.loads((adapter / "adapter_config.json").read_text())
    del fields["num_virtual_tokens"]
    (adapter / "adapter_config.json").write_text(json.dumps(fields))

    theirs, ours = is_refused(made, adapter)

    assert ours is theirs


@pytest.mark.parametrize("saved", [["lm_head"], ["head"], ["foo"], []])
@pytest.mark.parametrize("name", ["", "base_model.lm_head.weight", "base_model.model.lm_head.weight"])
@pytest.mark.parametrize("method", PROMPTS)
def test_a_saved_head_without_its_weights_is_reported(
    method: str, name: str, saved: list[str], corpus: Path, tmp_path: Path
) -> None:
    made = made_by_peft(method, corpus)
    adapter = edited(made, tmp_path / "tone", {"modules_to_save": saved})
    if name:
        file = adapter / "adapter_model.safetensors"
        head = load_file(made.base / "model.safetensors")["lm_head.weight"]
        save_file({**load_file(file), name: head.clone()}, file)

    theirs, ours = is_refused(made, adapter)

    assert ours is theirs
