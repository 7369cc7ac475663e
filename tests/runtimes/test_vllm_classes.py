"""The tables of vLLM's model classes match the classes of the installed vLLM."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import transformers

from adaptry.checks.runtimes.vllm_classes import EMBEDDING_MODULES, SPLIT_MODULES, WITHOUT_ADAPTERS
from adaptry.checks.runtimes.vllm_names import RENAMED, RENAMED_PREFIXES
from adaptry.checks.runtimes.vllm_towers import PARTS

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


READ_NAMES = """
import json, sys
from vllm.model_executor.models.registry import ModelRegistry
found = {}
for name in sorted(ModelRegistry.models):
    try:
        one = ModelRegistry.models[name].load_model_cls()
    except Exception:
        continue
    mapper = getattr(one, "hf_to_vllm_mapper", None)
    if mapper is None or not getattr(one, "supports_lora", False):
        continue
    prefixes = mapper.get_rename_mapper().orig_to_new_prefix
    if prefixes:
        found[name] = list(prefixes.items())
print("\\n" + json.dumps(found))
"""
READ_PARTS = """
import json, sys
from vllm.model_executor.models.registry import ModelRegistry
from vllm.model_executor.models.interfaces import supports_multimodal
found = {}
for name in sorted(ModelRegistry.models):
    try:
        one = ModelRegistry.models[name].load_model_cls()
    except Exception:
        continue
    if not getattr(one, "supports_lora", False) or not supports_multimodal(one):
        continue
    try:
        keys = one.get_mm_mapping(None)
    except AttributeError:
        continue
    towers = keys.tower_model + keys.connector if one.supports_tower_connector_lora else []
    found[name] = [*keys.language_model, towers]
print("\\n" + json.dumps(found))
"""
READ_PACKED = """
import json
from vllm.model_executor.models.registry import ModelRegistry
found = {}
for name in sorted(ModelRegistry.models):
    try:
        one = ModelRegistry.models[name].load_model_cls()
    except Exception:
        continue
    packed = getattr(one, "packed_modules_mapping", None)
    if getattr(one, "supports_lora", False) and isinstance(packed, dict):
        found[name] = sorted(key for key, parts in packed.items() if parts != [key])
print("\\n" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def python() -> str:
    found = ENGINES["vllm"].python
    if not found:
        pytest.skip("vLLM is not installed")
    return found


def answer(python: str, script: str, given: str = "") -> Any:
    """The JSON in the last line that the script prints."""
    done = subprocess.run([python, "-c", script], input=given, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.heavy
def test_every_listed_class_accepts_what_vllm_accepts(python: str) -> None:
    listed = {name: sorted(modules) for name, modules in EMBEDDING_MODULES.items()}
    expected = {**listed, **dict.fromkeys(WITHOUT_ADAPTERS)}

    assert answer(python, READ_CLASSES, json.dumps(sorted(expected))) == expected


@pytest.mark.heavy
def test_every_class_replaces_the_beginnings_of_names_that_vllm_replaces(python: str) -> None:
    found = {name: [tuple(pair) for pair in pairs] for name, pairs in answer(python, READ_NAMES).items()}
    listed = {name: [*pairs] for name, pairs in {**RENAMED_PREFIXES, **RENAMED}.items()}

    assert {name: listed.get(name) for name in found} == found


@pytest.mark.heavy
def test_every_class_applies_adapters_to_the_parts_that_vllm_applies_them_to(python: str) -> None:
    found = answer(python, READ_PARTS)
    listed = {name: [parts.language, [*parts.towers]] for name, parts in PARTS.items()}

    assert {name: listed.get(name) for name in found} == found


@pytest.mark.heavy
def test_every_module_of_a_model_that_vllm_knows_only_as_several_is_listed(python: str) -> None:
    source = Path(transformers.__file__).parent / "models"
    texts = [file.read_text() for file in source.glob("*/modeling_*.py")]
    found: dict[str, frozenset[str]] = {}
    for name, packed in answer(python, READ_PACKED).items():
        own = [text for text in texts if f"class {name}(" in text]
        modules = {key for key in packed if any(f"self.{key} = nn.Linear" in text for text in own)}
        if modules:
            found[name] = frozenset(modules)

    assert found == SPLIT_MODULES
