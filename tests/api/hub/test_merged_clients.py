"""Clients read a merged model: transformers loads it, and every byte matches what the Hub protocol
announces.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.registry.http import HttpRegistry
from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry_api.testing import Server

pytestmark = pytest.mark.heavy
pytest.importorskip("transformers")
HF = str(Path(sys.executable).with_name("hf"))

LOGITS = """
import json, sys, torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], **json.loads(sys.argv[2]))
with torch.inference_mode():
    print(json.dumps(model(torch.arange(12)[None]).logits.tolist()))
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "base", hidden=64, shards=3)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return tiny_lora(tmp_path / "tone", hidden=64, targets=("q_proj", "v_proj", "down_proj"))


@pytest.fixture(autouse=True)
def pushed(registry: HttpRegistry, base: Path, adapter: Path) -> None:
    base_registry.register_base(registry, open_checkpoint(base), ("org/tiny",), store=True)
    push(registry, open_dir(adapter), "acme/tone")


def run(server: Server, tmp_path: Path, *words: str) -> str:
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": server.admin,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "ADAPTRY_TOKEN": server.admin,
    }
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_transformers_answers_as_with_the_checkpoint_on_disk(
    server: Server, base: Path, adapter: Path, tmp_path: Path
) -> None:
    merged = tmp_path / "merged"
    recipe = MergeRecipe(base=str(base), inputs=(RecipeInput(source="tone"),))
    merge(
        recipe, open_checkpoint(base), [MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "tone"))], merged
    )

    expected = run(server, tmp_path, sys.executable, "-c", LOGITS, str(merged), "{}")
    found = run(server, tmp_path, sys.executable, "-c", LOGITS, "acme/tone.merged", '{"revision": "v1"}')

    assert json.loads(found) == json.loads(expected)


def test_the_hubs_client_verifies_what_it_downloaded(server: Server, tmp_path: Path) -> None:
    local = str(tmp_path / "local")

    run(server, tmp_path, HF, "download", "acme/tone.merged")
    run(server, tmp_path, HF, "download", "acme/tone.merged", "--local-dir", local)
    run(server, tmp_path, HF, "download", "acme/tone.merged", "--local-dir", local)

    run(server, tmp_path, HF, "cache", "verify", "acme/tone.merged", "--fail-on-missing-files")
    run(
        server,
        tmp_path,
        HF,
        "cache",
        "verify",
        "acme/tone.merged",
        "--local-dir",
        local,
        "--fail-on-missing-files",
    )


def test_a_downloaded_merged_model_can_be_verified(server: Server, tmp_path: Path) -> None:
    local = str(tmp_path / "local")
    run(server, tmp_path, HF, "download", "acme/tone.merged", "--local-dir", local)

    run(
        server, tmp_path, sys.executable, "-m", "adaptry_cli", "verify-merge", local, "--registry", server.url
    )
