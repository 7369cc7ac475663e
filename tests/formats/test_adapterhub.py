"""Adapters made by AdapterHub's own library: described, pushed, pulled, and loaded by it again with equal outputs.

The library pins an older transformers, so it runs in an environment of its own, which `ADAPTERHUB_PYTHON` names
(`python -m venv …`, then `pip install adapters==1.3.0 torch`).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from adaptry import open_dir, pull, push
from adaptry.checkpoint import open_checkpoint
from adaptry.checks import check
from adaptry.fingerprinting import fingerprint
from adaptry.opening import open_local

PYTHON = os.environ.get("ADAPTERHUB_PYTHON", "")
SCRIPT = Path(__file__).with_name("adapterhub_library.py")
METHODS = {
    "seq_bn": "bottleneck", "double_seq_bn": "bottleneck", "par_bn": "bottleneck", "seq_bn_inv": "bottleneck",
    "compacter": "bottleneck", "lora": "lora", "ia3": "ia3", "loreft": "reft",
}  # fmt: skip

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not PYTHON, reason="ADAPTERHUB_PYTHON names no Python that has the adapters library"),
]


def library(*arguments: str | Path) -> str:
    env = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH"
    }  # theirs is another Python
    run = subprocess.run([PYTHON, SCRIPT, *arguments], capture_output=True, text=True, check=False, env=env)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapterhub")
    library("make", folder)
    return folder


@pytest.mark.parametrize("model", ["bert", "llama"])
@pytest.mark.parametrize("config", METHODS)
def test_every_tensor_of_its_adapters_is_described_and_fits_its_base(
    model: str, config: str, corpus: Path
) -> None:
    adapter = open_dir(corpus / f"{model}-{config}")
    assert adapter.spec.method == METHODS[config]
    assert adapter.spec.modules
    assert not adapter.spec.unclaimed
    assert not check(adapter, fingerprint(open_checkpoint(corpus / model))).findings


@pytest.mark.parametrize("model", ["bert", "llama"])
def test_pulled_back_they_are_loaded_by_the_library_and_answer_as_before(
    model: str, corpus: Path, tmp_path: Path
) -> None:
    registry = open_local(tmp_path / "registry")
    for config in METHODS:
        push(registry, open_dir(corpus / f"{model}-{config}"), f"acme/{config}")
        pull(registry, f"acme/{config}", tmp_path / config)
    before = [corpus / f"{model}-{config}" for config in METHODS]
    after = [tmp_path / config for config in METHODS]
    told = json.loads(library("answers", corpus, model, *before, *after).splitlines()[-1])
    assert told[: len(METHODS)] == told[len(METHODS) :]
    assert len({json.dumps(answer) for answer in told}) == len(
        METHODS
    )  # each of them does something of its own
