"""`--report` and `--heatmap`: a result compared with its parents, as numbers and as an image."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from .test_combine import torch, update

pytestmark = pytest.mark.usefixtures("out", "better", "base")


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one * other).sum() / (one.norm() * other.norm()))


def test_a_combination_is_reported_beside_its_parents(run) -> None:
    told = run(
        "combine", "./out", "./better=0.5", "-o", "./both", "--report", "both.json", "--heatmap", "both.png"
    )

    found = json.loads(Path("both.json").read_text())
    assert found["output"] == "both" and found["report"]["parents"] == ["./out", "./better"]
    module = next(
        each for each in found["report"]["modules"] if each["module"].endswith("0.self_attn.q_proj")
    )
    for parent, said in zip(("out", "better"), module["cosines"], strict=True):
        assert math.isclose(said, cosine(update("both"), update(parent)), rel_tol=1e-5)
    assert math.isclose(module["norm"], float(update("both").norm()), rel_tol=1e-5)
    signs = update("out") * update("better") < 0
    size = update("out").abs() + update("better").abs()
    assert math.isclose(module["conflict"], float(size[signs].sum() / size.sum()), rel_tol=1e-4)
    assert Path("both.png").read_bytes().startswith(b"\x89PNG")
    assert (
        "compared with ./out: cosine" in told.stderr and "between the parents: sign conflict" in told.stderr
    )
    assert told.stdout == "both\n"


def test_a_derived_version_is_compared_with_its_parents(run) -> None:
    run("push", "./out", "acme/a")
    run("push", "./better", "acme/b")
    run("stack", "acme/a", "acme/b", "-o", "acme/both", "--report", "both.json")

    found = json.loads(Path("both.json").read_text())
    assert found["output"] == "acme/both@1" and found["digest"].startswith("sha256:")
    assert found["report"]["parents"] == ["acme/a@1", "acme/b@1"]
    assert 0 < found["report"]["conflict"] < 1


def test_a_smaller_rank_is_shown_beside_the_larger(run) -> None:
    run("resize", "./better", "--rank", "2", "-o", "./thin", "--report", "thin.json")

    report = json.loads(Path("thin.json").read_text())["report"]
    kept = report["kept"]
    assert 0 < kept < 1
    assert math.isclose(report["ratios"][0] ** 2, kept, rel_tol=1e-5)  # the nearest is a projection
    assert math.isclose(report["cosines"][0] ** 2, kept, rel_tol=1e-5)


def test_an_invalid_destination_is_refused_before_any_work(run) -> None:
    told = run("stack", "./out", "./better", "-o", "./both", "--report", "nowhere/both.json", code=2)

    assert "cannot write nowhere/both.json" in told.stderr
    assert not Path("both").exists()
