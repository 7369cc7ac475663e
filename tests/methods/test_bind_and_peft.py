"""Findings about an adapter on a base match PEFT's behaviour, for randomly generated adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from .campaign import judge

IN_A_BATCH = 50


def wrong_in_batch(batch: int, folder: Path, corpus: Path) -> list[str]:
    """The errors in one batch of cases, each in a line that states how to reproduce it."""
    seeds = range(batch * IN_A_BATCH, (batch + 1) * IN_A_BATCH)
    return [str(one) for one in judge(seeds, folder, corpus) if one.wrong]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.mark.heavy
@pytest.mark.parametrize("batch", range(8))
def test_binding_equals_peft(batch: int, tmp_path: Path, corpus: Path) -> None:
    assert wrong_in_batch(batch, tmp_path, corpus) == []


@pytest.mark.heavy
@pytest.mark.parametrize("batch", range(8, 120))
def test_binding_equals_peft_in_a_campaign(batch: int, tmp_path: Path, corpus: Path) -> None:
    assert wrong_in_batch(batch, tmp_path, corpus) == []
