"""A Shadow adapter whose second model has different shapes than the one that PEFT derives from the base."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
from safetensors.torch import load_file, save_file
from tests.methods.corpus import Case, cases, make
from tests.methods.families import FAMILIES

from adaptry import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check

CASES = list(cases(["shadow"], ["gpt2", "llama", "qwen2_moe"], ["fp32"]))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_only_tensors_with_shapes_of_the_base_are_accepted(case: Case, tmp_path: Path) -> None:
    made = make(case, tmp_path)
    record = fingerprint(open_checkpoint(made.base))
    file = made.adapter / "adapter_model.safetensors"
    tensors = load_file(file)

    assert not check(open_dir(made.adapter), record).is_blocked
    for name in (name for name in tensors if ".shadow_backbone." in name):
        longer = torch.cat([tensors[name], tensors[name][:1]])
        save_file({**tensors, name: longer}, file)
        assert check(open_dir(made.adapter), record).is_blocked, name
    with pytest.raises(RuntimeError, match="size mismatch"):
        peft.PeftModel.from_pretrained(FAMILIES[case.family].load(made.base), made.adapter)
