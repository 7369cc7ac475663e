"""The tables of vLLM's model classes equal what the installed vLLM says of each class."""

from __future__ import annotations

import json
import subprocess

import pytest

from adaptry.checks.runtimes.vllm_classes import EMBEDDING_MODULES, WITHOUT_ADAPTERS

from .matrix.engines import ENGINES

READ_CLASSES = """
import json, sys
from vllm.model_executor.models.registry import ModelRegistry
found = {}
for name in json.load(sys.stdin):
    one = ModelRegistry.models[name].load_model_cls()
    found[name] = sorted(one.embedding_modules) if getattr(one, "supports_lora", False) else None
print("\\n" + json.dumps(found))
"""


@pytest.mark.heavy
def test_every_listed_class_accepts_what_vllm_accepts() -> None:
    python = ENGINES["vllm"].python
    if not python:
        pytest.skip("vLLM is not installed")
    listed = {name: sorted(modules) for name, modules in EMBEDDING_MODULES.items()}
    expected = {**listed, **dict.fromkeys(WITHOUT_ADAPTERS)}

    done = subprocess.run(
        [python, "-c", READ_CLASSES],
        input=json.dumps(sorted(expected)),
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout.splitlines()[-1]) == expected
