"""Keys of `rank_pattern` and `alpha_pattern` that match no module: PEFT warns about the same ones at load."""

from __future__ import annotations

import ast
import random
import re
import warnings
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.testing.samples import tiny_base, tiny_lora

KEYS = (
    "q_proj", "v_proj", "k_proj", "proj", "q.proj", r"q\.proj", "self_attn.q_proj", "layers.0", "mlp.up_proj",
    "layers.0.self_attn.v_proj", "model.layers.1.self_attn.q_proj", "base_model.model.q_proj", r".*\.q_proj",
    r"layers\.[01]\..*", r"layers\.[7-9]\..*", "(q|v)_proj", "Q_PROJ",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("seed", range(40))
def test_the_keys_that_peft_ignores_are_found(seed: int, base: Path, tmp_path: Path) -> None:
    source = random.Random(seed)
    chosen = source.sample(KEYS, source.randrange(1, 5))
    folder = tiny_lora(tmp_path, config={"alpha_pattern": {key: source.choice([2, 16]) for key in chosen}})

    with warnings.catch_warnings(record=True, action="always") as caught:
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    said = [str(one.message) for one in caught if "alpha_pattern keys did not match" in str(one.message)]
    ignored = ast.literal_eval(re.findall(r"ignored: (\[.*\])", said[0])[0]) if said else []

    for record in (None, fingerprint(open_checkpoint(base))):
        report = check(open_dir(folder), record)
        found = [one.reason for one in report.findings if one.code == "pattern_unused"]
        assert len(found) == bool(ignored)
        assert all(key in found[0] for key in ignored[:2])
        assert not report.is_blocked
