"""`adaptry similar` and `adaptry diff --weights`: distances between adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.testing.samples import tiny_lora

pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("out", "better")


def test_a_retrained_adapter_with_another_name_is_found(run, answer) -> None:
    run("push", "./out", "acme/tone")
    run("push", "./better", "acme/better")
    run("combine", "acme/tone", "acme/better=0.05", "-o", "acme/copycat")

    shown = run("similar", "acme/tone").stdout

    assert "acme/copycat@1" in shown and "4 of 4" in shown
    (found,) = answer("similar", "acme/tone")["found"]
    assert (found["ref"], found["same_weights"]) == ("acme/copycat@1", False)
    assert found["cosine"] > 0.99
    assert len(answer("similar", "./out", "--min-cosine", "0")["found"]) >= 2
    assert "same weights" in run("similar", "./out").stdout


def test_an_empty_result_of_similar_is_reported(run) -> None:
    run("push", "./better", "acme/better")

    result = run("similar", "./out")

    assert result.stdout == ""
    assert "no similar adapter among 1 version of org/tiny" in result.stderr


def test_an_adapter_without_a_base_asks_for_one(run) -> None:
    tiny_lora(Path("lone"), config={"base_model_name_or_path": None})

    assert "--base NAME" in run("similar", "./lone", code=2).stderr
    run("push", "./out", "acme/tone")
    assert "acme/tone@1" in run("similar", "./lone", "--base", "org/tiny").stdout


def test_a_diff_reads_weights_only_on_request(run, answer) -> None:
    tiny_lora(Path("retrained"), seed=2)

    assert "distance" not in run("diff", "./out", "./retrained").stdout
    shown = run("diff", "./out", "./retrained", "--weights", "--top", "1")

    assert shown.stdout.splitlines()[-2].startswith("all modules")
    assert "showing 1 of 4 modules" in shown.stderr
    found = answer("diff", "./out", "./retrained", "--weights")
    assert found["differences"] == answer("diff", "./out", "./retrained")
    assert len(found["weights"]["modules"]) == 4
    assert found["weights"]["distance"] > 1


def test_a_diff_of_weights_without_factors_has_a_remedy(run) -> None:
    tiny_lora(Path("dora"), config={"use_dora": True})

    assert "adaptry convert" in run("diff", "./out", "./dora", "--weights", code=2).stderr


def test_the_base_folder_of_a_config_is_recognised(run, base: Path) -> None:
    run("base", "add", "./base", "--name", "org/model")
    tiny_lora(Path("trained"), base_name="./base")
    run("push", "./trained", "acme/tone")

    assert "acme/tone@1" in run("similar", "./trained").stdout


def test_an_adapter_whose_updates_are_not_compared_is_named_with_its_conversion(run, answer) -> None:
    run("push", "./out", "acme/tone")
    tiny_lora(Path("dora"), config={"use_dora": True})

    result = run("similar", "./dora")

    assert "only versions with exactly the same weights are found: dora" in result.stderr
    assert "`adaptry convert ./dora" in result.stderr
    assert "not plain LoRAs" not in result.stderr
    assert answer("similar", "./out")["uncompared"] is None
