"""MLX's LoRA converted to PEFT's layout and merged: the weights equal those of `mlx_lm.fuse`."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from adaptry import open_dir

from .into_peft import assert_same, converted, merged, run
from .other_environment import OtherEnvironment

LIBRARY = OtherEnvironment("mlx", "mlx_library.py")
WAYS = ("lora", "last", "dora")

pytestmark = LIBRARY.marks


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlx")
    LIBRARY.run("make", folder)
    LIBRARY.run("fused", "llama", *(folder / f"llama-{way}" for way in WAYS))
    for way in WAYS:  # next to the adapter, not in it
        (folder / f"llama-{way}" / "fused.safetensors").rename(folder / f"{way}.safetensors")
    return folder


@pytest.fixture(scope="module")
def weights(corpus: Path) -> dict[str, Any]:
    return load_file(corpus / "llama" / "model.safetensors")


@pytest.fixture(scope="module")
def model(corpus: Path, weights: dict[str, Any]) -> LlamaForCausalLM:
    fields = json.loads((corpus / "llama" / "config.json").read_text())
    found = LlamaForCausalLM(LlamaConfig(**fields, tie_word_embeddings=True)).eval()
    found.load_state_dict(weights, strict=False)
    return found


@pytest.mark.parametrize("way", WAYS)
def test_peft_merges_what_is_converted_as_mlx_fuses_it(
    way: str, corpus: Path, model: LlamaForCausalLM, weights: dict[str, Any], tmp_path: Path
) -> None:
    folder = converted(corpus / f"llama-{way}", tmp_path / "peft")
    found = PeftModel.from_pretrained(copy.deepcopy(model), str(folder)).merge_and_unload().state_dict()
    fused = load_file(corpus / f"{way}.safetensors")
    assert_same({name: found[name] for name in weights}, fused, weights)


@pytest.mark.parametrize("way", WAYS)
def test_merging_mlxs_files_gives_the_weights_that_mlx_fuses(
    way: str, corpus: Path, weights: dict[str, Any], tmp_path: Path
) -> None:
    found = merged(corpus / f"llama-{way}", corpus / "llama", tmp_path / "merged")
    assert_same(found, load_file(corpus / f"{way}.safetensors"), weights)


def test_the_record_names_mlxs_files_and_the_merge_is_verified(corpus: Path, tmp_path: Path) -> None:
    merged(corpus / "llama-lora", corpus / "llama", tmp_path / "merged")
    record = json.loads((tmp_path / "merged" / "adaptry_merge.json").read_text())
    assert record["recipe"]["inputs"][0]["source"] == str(corpus / "llama-lora")
    assert record["inputs"][0]["weights"] == str(open_dir(corpus / "llama-lora").weights_digest())
    told = run("verify-merge", tmp_path / "merged")
    assert told.exit_code == 0, told.output


@pytest.mark.parametrize(
    ("case", "reason"),
    [("llama-embedded", "also the output head"), ("mixtral-lora", "changes the experts of a layer")],
)
def test_an_mlx_adapter_that_peft_would_alter_is_neither_converted_nor_merged(
    case: str, reason: str, corpus: Path, tmp_path: Path
) -> None:
    base = corpus / case.partition("-")[0]
    for command in ("convert", "merge"):
        told = run(command, corpus / case, "--base", base, "-o", tmp_path / "made")
        assert told.exit_code != 0
        assert reason in " ".join(told.output.split())
        assert not (tmp_path / "made").exists()
