"""A comparison report drawn as an image."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from adaptry.core.errors import Invalid, MissingDependency

torch = pytest.importorskip("torch")
from adaptry.compute.comparison.combine_report import build_combine_report  # noqa: E402
from adaptry.compute.comparison.heatmap import draw_heatmap  # noqa: E402


@pytest.fixture
def told(lora):
    """The report about an adapter that was combined from two."""
    parents = lora("a"), lora("b", seed=2, targets=("q_proj", "down_proj"), layers=3)
    return build_combine_report(parents, lora("c", seed=3))


def test_a_report_is_drawn_as_a_png(told, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    draw_heatmap(told, tmp_path / "map.png")

    data = (tmp_path / "map.png").read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data.startswith(b"\x89PNG\r\n") and width > height > 100


def test_an_unwritable_destination_is_reported(told, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    with pytest.raises(Invalid, match="cannot write the heat map"):
        draw_heatmap(told, tmp_path / "nowhere" / "map.png")


def test_without_matplotlib_the_remedy_is_named(told, tmp_path: Path, monkeypatch) -> None:
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(MissingDependency, match=r"adaptry\[plots\]"):
        draw_heatmap(told, tmp_path / "map.png")
