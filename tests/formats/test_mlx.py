"""Adapters made by mlx-lm: described, pushed, pulled, and loaded by it again with equal outputs.

It runs in a separate environment, which `make environments` creates.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from adaptry import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks import check
from adaptry.operations.transfer import pull, push
from adaptry.storage.connect import open_local

from .other_environment import OtherEnvironment

LIBRARY = OtherEnvironment("mlx", "mlx_library.py")
WAYS = {"llama": ("lora", "last", "dora", "embedded"), "mixtral": ("lora", "last", "embedded")}
CASES = [f"{model}-{way}" for model, ways in WAYS.items() for way in ways]

pytestmark = LIBRARY.marks


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlx")
    LIBRARY.run("make", folder)
    return folder


def codes(adapter: Path, base: Path) -> set[str]:
    return {found.code for found in check(open_dir(adapter), fingerprint(open_checkpoint(base))).findings}


@pytest.mark.parametrize("model", WAYS)
def test_an_adapter_that_is_pulled_back_answers_as_before_at_the_scales_of_its_spec(
    model: str, corpus: Path, tmp_path: Path
) -> None:
    registry = open_local(tmp_path / "registry")
    for way in WAYS[model]:
        push(registry, open_dir(corpus / f"{model}-{way}"), f"acme/{way}")
        pull(registry, f"acme/{way}", tmp_path / way)
    before = LIBRARY.run("answers", model, *(corpus / f"{model}-{way}" for way in WAYS[model]))
    after = LIBRARY.run("answers", model, *(tmp_path / way for way in WAYS[model]))
    assert before == after
    for way, answer in zip(WAYS[model], before, strict=True):
        assert all(math.isfinite(logit) for row in answer["logits"][0] for logit in row)
        spec = open_dir(tmp_path / way).spec
        assert {module.path: module.scale for module in spec.modules} == answer["scales"]


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_is_described_and_fits_its_base(case: str, corpus: Path) -> None:
    model, _, way = case.partition("-")
    assert not open_dir(corpus / case).spec.unclaimed
    assert codes(corpus / case, corpus / model) == (
        {"tied_embeddings"} if case == "llama-embedded" else set()
    )
    other = "mixtral" if model == "llama" else "llama"
    if way in ("lora", "last"):
        assert codes(corpus / case, corpus / other) & {"module_missing", "shape_mismatch"}


def test_a_config_of_another_rank_is_found_and_refused_by_mlx(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    source = corpus / "llama-lora"
    (folder / "adapters.safetensors").write_bytes((source / "adapters.safetensors").read_bytes())
    config = json.loads((source / "adapter_config.json").read_text())
    config["lora_parameters"]["rank"] = 8
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert "rank_mismatch" in codes(folder, corpus / "llama")
    (answer,) = LIBRARY.run("answers", "llama", folder)
    assert "does not match" in answer["refused"]


@pytest.mark.parametrize(
    "fields",
    [
        {"num_layers": 1},
        {"lora_parameters": {"rank": 4, "scale": 20.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}},
    ],
    ids=["of fewer layers", "of other modules"],
)
def test_a_config_that_does_not_select_all_modules_is_found_and_refused_by_mlx(
    fields: dict[str, object], corpus: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    source = corpus / "llama-lora"
    (folder / "adapters.safetensors").write_bytes((source / "adapters.safetensors").read_bytes())
    config = json.loads((source / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **fields}))
    assert "loader_refuses" in codes(folder, corpus / "llama")
    (answer,) = LIBRARY.run("answers", "llama", folder)
    assert "not an adapter parameter" in answer["refused"]
