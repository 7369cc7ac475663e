"""Quantised bases on the command line: reported at registration, shown with their originals, and merged as
requested.
"""

from __future__ import annotations

import json
from pathlib import Path

from adaptry.testing.quantised_samples import quantised_copy
from adaptry.testing.samples import tiny_base, tiny_lora

from .conftest import Run


def test_a_copy_and_its_original_reference_each_other(run: Run, home: Path, tmp_path: Path) -> None:
    tiny_base(tmp_path / "base")
    quantised_copy(tmp_path / "base", tmp_path / "copy")
    first = run("base", "add", "./copy", "--name", "org/tiny-4bit")
    assert "quantised: bitsandbytes nf4, 4-bit" in first.stderr
    second = run("base", "add", "./base", "--name", "org/tiny")
    assert "org/tiny-4bit is a quantised copy of it (quantised by bitsandbytes nf4, 4-bit: " in second.stderr

    shown = run("base", "show", "org/tiny-4bit").stdout
    assert "bitsandbytes nf4, 4-bit" in shown
    assert "a quantised copy of org/tiny (" in shown
    answer = json.loads(run("base", "show", "org/tiny", "--json").stdout)
    assert answer["quantised"] is None
    assert [(other["role"], other["id"]) for other in answer["relatives"]] == [("copy", first.stdout.strip())]
    assert "org/tiny " in run("base", "match", "./copy").stdout


def test_a_merge_into_a_copy_uses_the_requested_weights(run: Run, home: Path, tmp_path: Path) -> None:
    tiny_base(tmp_path / "base")
    quantised_copy(tmp_path / "base", tmp_path / "copy")
    tiny_lora(tmp_path / "tone")
    into_copy = ("merge", "--base", "./copy", "./tone", "-o")

    assert "pass --base-copy dequantised" in run(*into_copy, "out", code=1).stderr
    refused = run(*into_copy, "out", "--base-copy", "original", code=1)
    assert "its original is not registered" in refused.stderr

    original = run("base", "add", "./base", "--name", "org/tiny").stdout.strip()
    run(*into_copy, "out", "--base-copy", "original")
    run(*into_copy, "packed", "--base-copy", "dequantised")
    record = json.loads((tmp_path / "out" / "adaptry_merge.json").read_text())
    assert record["base"] == original
    assert record["base_copy"]["kind"] == "original"
    assert "a quantised copy of org/tiny" in record["base_copy"]["reason"]
    assert (
        json.loads((tmp_path / "packed" / "adaptry_merge.json").read_text())["base_copy"]["kind"]
        == "dequantised"
    )


def test_inspect_reports_that_merging_into_a_copy_needs_an_option(run: Run, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "tone", base_name="unsloth/tiny-bnb-4bit")
    assert "choose the copy with --base-copy" in run("inspect", "./tone").stdout
