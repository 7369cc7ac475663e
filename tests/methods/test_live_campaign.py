"""Findings and merges match PEFT's unmerged model, for randomly generated adapters on many architectures."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from .live_campaign import judge

IN_A_BATCH = 25


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.mark.heavy
@pytest.mark.parametrize("batch", range(12))
def test_no_answer_is_wrong(batch: int, tmp_path: Path, corpus: Path) -> None:
    seeds = range(batch * IN_A_BATCH, (batch + 1) * IN_A_BATCH)
    assert [str(wrong) for wrong in judge(seeds, tmp_path, corpus) if wrong] == []
