"""The matrix of verdicts: a sample with PEFT, the complete matrix with every installed engine, and
the page.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("peft")
pytest.importorskip("gguf")

import torch

from adaptry.checks.runtimes.rules_page import MEASURED, render_page

from .cases import Base, made_base
from .matrix.engines import ENGINES, Engine, Reply
from .matrix.families import FAMILIES, make_known_of
from .matrix.kept_replies import replies_of
from .matrix.run import make_known, run
from .matrix.table import is_sound, table_of
from .matrix.verdicts import counts, judged

ROOT = Path(__file__).parents[2]
FRESH = range(5000, 5012)


@pytest.mark.slow
def test_generated_adapters_behave_in_peft_as_in_its_verdict(tmp_path: Path) -> None:
    results = run("peft", make_known(tmp_path, FRESH, with_named=False), tmp_path)
    assert [str(one) for one in results if one.kind in ("miss", "false alarm")] == []
    assert is_sound(table_of({"peft": results}, FRESH))


@pytest.mark.heavy
def test_no_installed_engine_differs_from_its_verdict() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtimes.matrix"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.heavy
@pytest.mark.parametrize("family", FAMILIES)
def test_vllm_serves_adapters_of_other_families_as_its_verdict_says(tmp_path: Path, family: str) -> None:
    """This includes updates of the output head and of the embeddings, even if these are tied."""
    vllm = ENGINES["vllm"]
    if not vllm.python:
        pytest.skip("vLLM is not installed (make environments)")
    adapters = make_known_of(FAMILIES[family], tmp_path, range(72_000, 72_020))
    (tmp_path / "vllm").mkdir()
    replies = vllm.replies(adapters.base, [one.folder for one in adapters.specimens], tmp_path / "vllm")
    results = judged(vllm, adapters, replies)
    assert [str(one) for one in results if one.kind in ("miss", "false alarm")] == []
    assert counts(results)["as_trained"] > 0


def test_an_interrupted_run_repeats_only_missing_and_changed_cases(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def replies(base: Base, adapters: Sequence[Path], folder: Path) -> list[Reply]:
        asked.append([adapter.name for adapter in adapters])
        return [Reply(odds=torch.tensor([float(adapter.name)])) for adapter in adapters]

    def ask(adapters: Sequence[Path], folder: str) -> list[Reply]:
        (tmp_path / folder).mkdir()
        return replies_of(engine, base, adapters, tmp_path / folder, tmp_path / "kept")

    engine = Engine("engine", "vllm", "1.0", sys.executable, replies)
    base = made_base(tmp_path / "base")
    adapters = [tmp_path / str(number) for number in range(3)]
    for adapter in adapters:
        adapter.mkdir()
        (adapter / "adapter_config.json").write_text(adapter.name)
    ask(adapters[:2], "first")
    with (tmp_path / "kept" / "engine 1.0.jsonl").open("a") as lines:
        lines.write('{"key": "cut')
    assert [float(one.odds) for one in ask(adapters, "second") if one.odds is not None] == [0, 1, 2]
    (adapters[0] / "adapter_config.json").write_text("{}")
    ask(adapters, "third")
    assert asked == [["0", "1"], ["2"], ["0"]]


def test_the_page_has_the_counts_of_the_last_run() -> None:
    page = (ROOT / "docs" / "runtimes.md").read_text()
    assert page == render_page()
    for row in json.loads(MEASURED.read_text()).values():
        assert f"| {row['adapters']} | {row['as_trained']} | {row['changed']} | {row['refused']} |" in page
