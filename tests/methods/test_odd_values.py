"""Whatever value a field of a method's config has, what we say of the adapter is what PEFT does with it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from .odd_values import wrong_values
from .variants import VARIANTS

_IN_CI = ("osf", "peanut", "tinylora")


@pytest.mark.slow
@pytest.mark.parametrize("method", _IN_CI)
def test_an_odd_value_is_judged_as_by_peft(method: str, tmp_path: Path) -> None:
    assert list(wrong_values(method, tmp_path)) == []


@pytest.mark.heavy
@pytest.mark.parametrize("method", sorted(VARIANTS.keys() - {"bone", *_IN_CI}))
def test_an_odd_value_of_any_method_is_judged_as_by_peft(method: str, tmp_path: Path) -> None:
    assert list(wrong_values(method, tmp_path)) == []
