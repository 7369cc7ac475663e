"""Rules of the code base: the cost of imports, and names and sizes of files. (import-linter checks in `make
lint` which package may import which.)
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for part in ("registry", "cli", "api", "tests", "bench", "examples")
    for path in (ROOT / part).rglob("*.py")
]
HEAVY = (
    "torch",
    "numpy",
    "transformers",
    "peft",
    "boto3",
    "sqlmodel",
    "sqlalchemy",
    "alembic",
    "fastapi",
    "urllib3",
)

LIGHT = (
    "adaptry",
    "adaptry.registry.interface",
    "adaptry.registry.records",
    "adaptry.core.query",
    "adaptry.adapters.adapter",
    "adaptry.adapters.methods",
    "adaptry.checks",
    "adaptry.operations.transfer",
    "adaptry.facade.aliases",
    "adaptry.facade.check",
    "adaptry.facade.lineage",
    "adaptry.facade.registries",
    "adaptry.facade.search",
    "adaptry.facade.states",
    "adaptry.facade.transfer",
    "adaptry.integrations.serving",
    "adaptry.integrations.serving.compatibility",
    "adaptry.integrations.serving.vllm",
)


def modules_after(statement: str) -> set[str]:
    """The top-level packages that a fresh interpreter holds after running `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_light_side_loads_nothing_heavy() -> None:
    """One interpreter imports all of them: if together they load no heavy module, none of them does."""
    loaded = modules_after("\n".join(f"import {module}" for module in LIGHT))
    assert loaded.isdisjoint(HEAVY)


def test_importing_adaptry_alone_loads_no_dependency_at_all() -> None:
    assert modules_after("import adaptry").isdisjoint((*HEAVY, "pydantic", "click", "rich", "platformdirs"))


def test_the_embedded_registry_opens_without_torch(home: Path) -> None:
    assert modules_after("import adaptry\nadaptry.connect()").isdisjoint(
        ("torch", "numpy", "fastapi", "boto3")
    )


def test_the_server_is_created_without_torch() -> None:
    assert modules_after("import adaptry_api.app").isdisjoint(("torch", "numpy", "transformers", "peft"))


def test_a_recipe_is_composed_and_checked_without_torch() -> None:
    recipe = "{'inputs': ['acme/tone', 'acme/style'], 'method': 'ties', 'to': 'acme/both'}"
    composed = f"""
from adaptry.registry.job_types import tasks
tasks.combine_methods()
tasks.parse_task('combine', {recipe})
"""
    assert modules_after(composed).isdisjoint(("torch", "numpy", "transformers", "peft"))


@pytest.mark.parametrize("word", ["utils", "helpers", "common", "manager", "service", "handler", "misc"])
def test_no_module_has_a_generic_name(word: str) -> None:
    assert [path for path in SOURCES if re.search(rf"(^|_){word}s?$", path.stem)] == []


def test_the_code_has_no_to_do_comments() -> None:
    marker = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")) + r")\b")
    left = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marker.search(line)
    ]
    assert left == []


def test_every_module_has_a_docstring() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if (text := path.read_text().strip()) and not re.match(r'r?"""\S', text)
    ]
    assert silent == []
