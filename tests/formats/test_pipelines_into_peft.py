"""diffusers' and kohya's LoRAs converted to PEFT's layout and merged for each model of the pipeline: the
weights equal those of diffusers' `load_lora_weights` and `fuse_lora`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from .into_peft import Weights, assert_same, converted, merged, run
from .other_environment import OtherEnvironment

DIFFUSERS = OtherEnvironment("diffusers", "diffusers_library.py")
WAYS = {
    "sd": ("older", "metadata", "patterns", "rslora", "conv", "processors", "kohya", "locon"),
    "sdxl": ("metadata", "kohya", "original"),
    "flux": ("metadata", "alphas"),
}
PARTS = {
    "sd": ("unet", "text_encoder"),
    "sdxl": ("unet", "text_encoder", "text_encoder_2"),
    "flux": ("transformer", "text_encoder"),
}
UNET_ONLY = ("processors",)
CASES = [
    (f"{kind}-{way}", part)
    for kind, ways in WAYS.items()
    for way in ways
    for part in PARTS[kind]
    if part == "unet" or way not in UNET_ONLY
]

pytestmark = DIFFUSERS.marks


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipelines and their LoRAs; each LoRA fused by diffusers, and each part converted to PEFT's layout
    and merged by PEFT (CASE-PART).
    """
    folder = tmp_path_factory.mktemp("diffusers")
    DIFFUSERS.run("make", folder)
    whole = [f"{kind}-{way}" for kind, ways in WAYS.items() for way in ways]
    DIFFUSERS.run("fused", *(folder / case for case in (*whole, "sd-dora")))
    for case, part in CASES:
        base = folder / case.partition("-")[0] / part
        converted(folder / case, folder / f"{case}-{part}", "--base", base)
    DIFFUSERS.run("merged", *(folder / f"{case}-{part}" for case, part in CASES))
    return folder


def weights_of(folder: Path) -> Weights:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize(("case", "part"), CASES)
def test_peft_merges_what_is_converted_as_diffusers_fuses_it(case: str, part: str, corpus: Path) -> None:
    base = weights_of(corpus / case.partition("-")[0] / part)
    found = weights_of(corpus / f"{case}-{part}" / "merged")
    assert_same(found, weights_of(corpus / f"{case}-fused" / part), base)


@pytest.mark.parametrize(("case", "part"), CASES)
def test_merging_the_file_gives_the_weights_that_diffusers_fuses(
    case: str, part: str, corpus: Path, tmp_path: Path
) -> None:
    folder = corpus / case.partition("-")[0] / part
    found = merged(corpus / case, folder, tmp_path / "merged")
    assert_same(found, weights_of(corpus / f"{case}-fused" / part), weights_of(folder))
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config == json.loads((folder / "config.json").read_text())


def test_a_dora_of_a_unet_stays_a_dora(corpus: Path, tmp_path: Path) -> None:
    found = merged(corpus / "sd-dora", corpus / "sd" / "unet", tmp_path / "merged")
    assert_same(found, weights_of(corpus / "sd-dora-fused" / "unet"), weights_of(corpus / "sd" / "unet"))


def refusal(*words: str | Path) -> str:
    told = run(*words)
    assert told.exit_code != 0, told.output
    return " ".join(told.output.split())


def test_missing_information_is_requested_by_option(corpus: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    assert "--base ./PIPELINE/PART" in refusal("convert", corpus / "sd-metadata", "-o", made)
    assert "only with the base's names" in refusal("convert", corpus / "sd-kohya", "-o", made)
    for case in ("sd-metadata", "sd-kohya"):
        told = refusal("merge", corpus / case, "--base", corpus / "sd", "-o", made)
        assert f"pass the folder of one of them (such as {corpus / 'sd' / 'unet'}" in told
    told = refusal("convert", corpus / "sd-dora", "--base", corpus / "sd" / "text_encoder", "-o", made)
    assert "drops a text encoder's magnitudes" in told
    told = refusal("convert", corpus / "sd-kohya", "--base", corpus / "flux" / "transformer", "-o", made)
    assert "is for a different model than this base" in told
    assert not made.exists()


def test_parts_for_another_model_are_reported(corpus: Path, tmp_path: Path) -> None:
    base = corpus / "sd" / "unet"
    told = run("convert", corpus / "sd-kohya", "--base", base, "-o", tmp_path / "made")
    assert "only unet of" in told.output
    assert "text_encoder (8 modules) belongs to another model" in " ".join(told.output.split())


def test_one_part_by_its_name_needs_no_base(corpus: Path, tmp_path: Path) -> None:
    alone = converted(corpus / "sd-metadata", tmp_path / "alone", "--part", "unet")
    weights = "adapter_model.safetensors"
    assert (alone / weights).read_bytes() == (corpus / "sd-metadata-unet" / weights).read_bytes()


def test_a_whole_pipeline_as_the_base_resolves_names(corpus: Path, tmp_path: Path) -> None:
    made = converted(corpus / "sd-kohya", tmp_path / "made", "--base", corpus / "sd", "--part", "unet")
    weights = "adapter_model.safetensors"
    assert (made / weights).read_bytes() == (corpus / "sd-kohya-unet" / weights).read_bytes()
