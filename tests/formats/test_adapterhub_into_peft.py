"""LoRA of AdapterHub's library converted to PEFT's layout and merged: the weights equal those of its
`merge_adapter`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from .into_peft import Weights, assert_same, converted, merged, run
from .other_environment import OtherEnvironment

LIBRARY = OtherEnvironment("adapterhub", "adapterhub_library.py")
MODELS = {"bert": AutoModelForSequenceClassification, "llama": AutoModelForCausalLM}
CASES = [f"{kind}-{way}" for kind in MODELS for way in ("lora", "lora_everywhere")]

pytestmark = LIBRARY.marks


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapterhub")
    LIBRARY.run("make", folder)
    for kind in MODELS:
        cases = [case for case in CASES if case.startswith(kind)]
        LIBRARY.run("merged", folder, kind, *(folder / case for case in cases))
        for case in cases:  # next to the adapter, not in it
            (folder / case / "merged.safetensors").rename(folder / f"{case}.safetensors")
    return folder


def base_of(corpus: Path, case: str) -> Path:
    return corpus / case.partition("-")[0]


def by_peft(base: Path, adapter: Path) -> Weights:
    model = MODELS[base.name].from_pretrained(base, dtype=torch.float32)
    found: Weights = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().state_dict()
    return found


@pytest.mark.parametrize("case", CASES)
def test_peft_merges_what_is_converted_as_the_library_does(case: str, corpus: Path, tmp_path: Path) -> None:
    base = base_of(corpus, case)
    folder = converted(corpus / case, tmp_path / "peft", "--base", base)
    weights = load_file(base / "model.safetensors")
    found = by_peft(base, folder)
    wanted = load_file(corpus / f"{case}.safetensors")
    assert_same({name: found[name] for name in weights}, wanted, weights)


@pytest.mark.parametrize("case", CASES)
def test_merging_the_file_gives_the_weights_that_the_library_merges(
    case: str, corpus: Path, tmp_path: Path
) -> None:
    found = merged(corpus / case, base_of(corpus, case), tmp_path / "merged")
    weights = load_file(base_of(corpus, case) / "model.safetensors")
    assert_same(found, load_file(corpus / f"{case}.safetensors"), weights)


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("lora_gated", "its update depends on the input"),
        ("dora", "which the library merges without its scale"),
        ("ia3", "is ia3 in the layout of AdapterHub"),
        ("par_bn", "is bottleneck in the layout of AdapterHub"),
        ("loreft", "is reft in the layout of AdapterHub"),
    ],
)
def test_adapters_that_peft_computes_differently_are_refused(
    way: str, reason: str, corpus: Path, tmp_path: Path
) -> None:
    for command in ("convert", "merge"):
        told = run(command, corpus / f"llama-{way}", "--base", corpus / "llama", "-o", tmp_path / "made")
        assert told.exit_code != 0
        assert reason in " ".join(told.output.split())
        assert not (tmp_path / "made").exists()
