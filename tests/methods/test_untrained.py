"""Adapters that change nothing are found; for every method, PEFT shows which ones they are.

An adapter that was saved before the first step of training loads everywhere, and the model answers as without
it. The sign of this depends on the method: a factor of zeros, multipliers of one, or copies of the base's
weights.
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file

import adaptry
from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.checks.weights import check_weights
from adaptry.operations.unchanged_parts import find_unchanged

from .corpus import Case, Made, NotByPeft, cases, make, train
from .families import FAMILIES

SEEN_ONLY_IN_THE_BASE = {
    "osf-plain", "deft-plain", "deft-qr", "frod-plain", "trainable_tokens-plain",
    "lora-tokens", "lora-dora", "lora-pissa", "lora-olora",
}  # fmt: skip
"""Adapters whose tensors begin as numbers computed from the base's weights, which a record lacks."""
WITHIN_ROUNDING = {*SEEN_ONLY_IN_THE_BASE, "hra-plain"}
"""Adapters that PEFT merges with products that cancel only up to the last bits of a float32."""
TASKS = {"poly", "multitask_prompt_tuning"}
PROMPTS = {"prompt_tuning", "p_tuning", "prefix_tuning", "cpt", "cartridge"}
UNMERGED = {"lily", "shadow", *TASKS, *PROMPTS}
"""Methods that PEFT does not merge."""
# X-LoRA weighs other adapters. An adaption prompt adds the bias of the output projection a second time,
# which this model has.
LEFT_OUT = {"xlora", "adaption_prompt"}
LLAMA = [case for case in cases(families=["llama"], dtypes=["fp32"]) if case.method not in LEFT_OUT]
OTHERS = [
    case
    for case in cases(families=["gpt2", "t5", "resnet", "attention", "conv1d", "conv3d"], dtypes=["fp32"])
    if case.method not in {*UNMERGED, *LEFT_OUT}
]
IN_THE_BASE = [
    case
    for case in cases(families=["llama", "gpt2", "bert", "resnet", "conv1d", "conv3d"])
    if f"{case.method}-{case.variant.name}" in {*WITHIN_ROUNDING, "hra-gram-schmidt"}
]


def kind(case: Case) -> str:
    return f"{case.method}-{case.variant.name}"


def is_visible(case: Case) -> bool:
    return kind(case) not in SEEN_ONLY_IN_THE_BASE


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.mark.parametrize("case", LLAMA, ids=str)
def test_an_adapter_saved_before_training_is_found(case: Case, corpus: Path) -> None:
    made = made_by_peft(case, corpus, lambda model: None)
    assert ("untrained" in codes(made)) == (is_visible(case) and is_without_effect(made))


@pytest.mark.parametrize("case", OTHERS, ids=str)
def test_an_adapter_of_another_model_saved_before_training_is_found(case: Case, corpus: Path) -> None:
    made = made_by_peft(case, corpus, lambda model: None)
    assert ("untrained" in codes(made)) == (is_visible(case) and is_without_effect(made))


@pytest.mark.parametrize("case", IN_THE_BASE, ids=str)
def test_the_folder_of_the_base_shows_that_an_adapter_changes_nothing(case: Case, corpus: Path) -> None:
    made = made_by_peft(case, corpus, lambda model: None)
    assert ("untrained" in codes_with_folder(made)) == is_without_effect(made)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("case", IN_THE_BASE, ids=str)
def test_the_folder_of_the_base_shows_that_some_tensors_were_trained(
    case: Case, seed: int, tmp_path: Path
) -> None:
    made = made_by_peft(case, tmp_path, partly(seed))
    assert ("untrained" in codes_with_folder(made)) == is_without_effect(made)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", LLAMA, ids=str)
def test_an_adapter_of_which_some_tensors_were_trained_is_found_only_if_it_changes_nothing(
    case: Case, seed: int, tmp_path: Path
) -> None:
    made = made_by_peft(case, tmp_path, partly(seed))
    assert ("untrained" in codes(made)) == (is_visible(case) and is_without_effect(made))


@pytest.mark.parametrize("case", LLAMA, ids=str)
def test_an_adapter_whose_update_underflows_is_found(case: Case, tmp_path: Path) -> None:
    def shrink(model: Any) -> None:  # (`Any`: PEFT is not typed.)
        train(model)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data *= 1e-36

    made = made_by_peft(case, tmp_path, shrink)
    assert ("untrained" in codes(made)) == (is_visible(case) and is_without_effect(made))


ZERO_SCALES: Mapping[str, Mapping[str, Any]] = {
    "lora-plain": {"lora_alpha": 0},
    "loha-plain": {"alpha": 0},
    "lokr-plain": {"alpha_pattern": {"q_proj": 0, "k_proj": 0, "down_proj": 0}},
    "oft-constrained": {"eps": 0},
    "shadow-plain": {"shadow_alpha": 0},
}
"""(`Any`: PEFT's fields.)"""


@pytest.mark.parametrize("case", [case for case in LLAMA if kind(case) in ZERO_SCALES], ids=str)
def test_a_config_that_multiplies_every_trained_update_by_zero_is_found(case: Case, tmp_path: Path) -> None:
    made = made_by_peft(case, tmp_path, train)
    assert findings_of_change(made, ZERO_SCALES[kind(case)]) == {"scale_zero"}
    assert is_without_effect(made)


@pytest.mark.parametrize(
    ("name", "fields"),
    [("supertuning-with-lora", {"lora_alpha": 0}), ("loha-plain", {"alpha_pattern": {"q_proj": 0}})],
)
def test_a_config_that_multiplies_some_updates_by_zero_is_found(
    name: str, fields: Mapping[str, Any], tmp_path: Path
) -> None:
    (case,) = (case for case in LLAMA if kind(case) == name)
    made = made_by_peft(case, tmp_path, train)
    assert findings_of_change(made, fields) == {"modules_scaled_to_zero"}
    assert not is_without_effect(made)


def findings_of_change(made: Made, fields: Mapping[str, Any]) -> set[str]:
    """The findings about new values in the saved config."""
    config = made.adapter / "adapter_config.json"
    before = {found.code for found in check(open_dir(made.adapter), None).findings}
    config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))
    return {found.code for found in check(open_dir(made.adapter), None).findings} - before


def test_a_check_with_the_base_finds_rows_of_embeddings_that_were_not_trained(corpus: Path) -> None:
    (case,) = cases(["trainable_tokens"], ["llama"], ["bf16"])
    made = made_by_peft(case, corpus, lambda model: None)
    found = adaptry.check(made.adapter, base=made.base, registry=corpus / "registry", progress=False)
    assert "untrained" in {finding.code for finding in found.findings}


def test_a_dora_whose_magnitudes_alone_were_trained_is_merged(tmp_path: Path) -> None:
    def train(model: Any) -> None:  # (`Any`: PEFT is not typed.)
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.data += 0.5

    (case,) = (each for each in cases(["lora"], ["llama"], ["fp32"]) if kind(each) == "lora-dora")
    made = made_by_peft(case, tmp_path, train)

    adaptry.merge(made.adapter, base=made.base, to=tmp_path / "ours", progress=False)

    ours, theirs = (
        load_file(folder / "model.safetensors")
        for folder in (tmp_path / "ours", made.merged_by_peft(tmp_path / "theirs"))
    )
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())
    assert codes_with_folder(made) == {"updates_zero"}


def made_by_peft(case: Case, folder: Path, train: Callable[[Any], None]) -> Made:
    try:
        return make(case, folder, train)
    except NotByPeft as reason:
        pytest.skip(str(reason))


def partly(seed: int) -> Callable[[Any], None]:
    """Trains the tensors of some kinds, such as every lora_A. (`Any`: PEFT is not typed.)"""

    def train(model: Any) -> None:
        source = random.Random(seed)
        torch.manual_seed(seed)
        chosen: dict[str, bool] = {}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                kind = name.rsplit("proj.", 1)[-1]
                if parameter.requires_grad and chosen.setdefault(kind, source.random() < 0.5):
                    parameter += torch.randn(parameter.shape) * 0.1

    return train


def codes(made: Made) -> set[str]:
    """The findings about the adapter's weights, if its base is known."""
    base = fingerprint(open_checkpoint(made.base))
    return {found.code for found in check_weights(open_dir(made.adapter), base=base)}


def codes_with_folder(made: Made) -> set[str]:
    """The findings about the adapter's weights, if its base's folder is given."""
    base = fingerprint(open_checkpoint(made.base))
    adapter = open_dir(made.adapter)
    look = partial(find_unchanged, adapter, base, made.base)
    return {found.code for found in check_weights(adapter, base=base, find_unchanged=look)}


def is_without_effect(made: Made) -> bool:
    """Whether PEFT's merge leaves every weight of the base unchanged (`WITHIN_ROUNDING`: up to the last bits
    of a float32); for methods that PEFT does not merge, whether the model's output is equal within rounding.
    """
    family = FAMILIES[made.case.family]
    before = family.load(made.base).eval()
    live = peft.PeftModel.from_pretrained(family.load(made.base), made.read_by_peft).eval()
    if made.case.method in UNMERGED:
        words = torch.arange(1, 9).unsqueeze(0)
        options = {"task_ids": torch.tensor([0])} if made.case.method in TASKS else {}
        with torch.no_grad():
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of PEFT's own calls
                answer = live(words, **options).logits[:, -8:]
            return torch.allclose(answer, before(words).logits, rtol=1e-5, atol=1e-6)
    merged = live.merge_and_unload().state_dict()
    is_rounded = kind(made.case) in WITHIN_ROUNDING and made.case.dtype == "fp32"
    tolerance = 2.0**-18 if is_rounded else 0.0
    return all(
        torch.allclose(merged[name], weight, rtol=0, atol=tolerance * float(weight.abs().max()))
        for name, weight in before.state_dict().items()
    )
