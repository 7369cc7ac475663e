"""`check`, and pushes that the checks refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.testing.samples import tiny_base, tiny_lora

pytestmark = pytest.mark.usefixtures("out", "base")


def test_an_adapter_that_fits_its_base_passes(run, answer) -> None:
    run("base", "add", "./base", "--name", "org/tiny")

    for source in ("./base", "org/tiny"):
        assert answer("check", "./out", "--base", source)["blocked"] is False


def test_an_adapter_for_another_base_is_blocked_with_a_reason_and_a_remedy(
    run, answer, tmp_path: Path
) -> None:
    tiny_base(tmp_path / "wide", hidden=32)

    report = answer("check", "./out", "--base", "./wide", code=1)

    assert report["blocked"] is True
    assert all(finding["reason"] and finding["remedy"] for finding in report["findings"])
    assert "cannot work as it is" in run("check", "./out", "--base", "./wide", code=1).stderr


def test_a_push_for_another_base_is_refused_unless_forced_with_a_reason(run, answer, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "misfit", hidden=32)
    run("base", "add", "./base", "--name", "org/tiny")

    refused = run("push", "./misfit", "acme/tone", code=1)
    assert refused.stdout == ""
    assert refused.stderr.startswith("error: ")
    run("show", "acme/tone", code=3)

    run("push", "./misfit", "acme/tone", "--force", code=2)
    run("push", "./misfit", "acme/tone", "--force", "--reason", "a test of the worker")
    assert answer("show", "acme/tone")["forced"] == "a test of the worker"


def test_an_adapter_whose_base_nobody_knows_is_admitted_with_a_warning(run, answer) -> None:
    result = run("push", "./out", "acme/tone")

    assert "warns" in result.stderr
    assert answer("show", "acme/tone")["version"]["base_status"] == "declared"


def test_weights_are_looked_at_when_asked(run, answer, tmp_path: Path) -> None:
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    zero = ("F32", (16, 4), bytes(16 * 4 * 4))
    tiny_lora(tmp_path / "untrained", layers=1, targets=("q_proj",), extra={f"{module}.lora_B.weight": zero})
    nan = ("F32", (16, 4), b"\x00\x00\xc0\x7f" * 64)
    tiny_lora(tmp_path / "spoiled", layers=1, targets=("q_proj",), extra={f"{module}.lora_B.weight": nan})

    assert "[untrained]" in run("push", "./untrained", "acme/untrained").stderr
    assert "[weights_nan]" in run("push", "./spoiled", "acme/spoiled", code=1).stderr
    run("push", "./spoiled", "acme/spoiled", "--force", "--reason", "to look into it")

    assert answer("check", "./spoiled")["blocked"] is False
    for source in ("./untrained", "acme/untrained"):
        assert "untrained" in [found["code"] for found in answer("check", source, "--weights")["findings"]]
    for source in ("./spoiled", "acme/spoiled"):
        assert answer("check", source, "--weights", code=1)["findings"][0]["code"] == "weights_nan"
