"""`adaptry extract` into a folder or the registry, with the reported loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from adaptry.core.refs import Ref
from adaptry.storage.connect import connect
from adaptry_cli.main import main

from .conftest import model_of, trained

Saved = Callable[..., Path]


def run(*words: object) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_extract_writes_the_lora_and_reports_the_loss(saved: Saved, tmp_path: Path) -> None:
    model = model_of("llama")
    base, fine = saved(model, "base"), saved(trained(model, ["q_proj", "norm"]), "tuned")
    answer = run("extract", fine, "--base", base, "--rank", 8, "-o", tmp_path / "lora")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.strip() == str(tmp_path / "lora")
    assert "7 of 21 weights changed" in answer.stderr
    assert "in modules_to_save" in answer.stderr
    assert "energy kept" in answer.stderr
    assert "of the change made by training" in answer.stderr


def test_extract_creates_a_version_with_base_and_recipe(saved: Saved) -> None:
    model = model_of("llama")
    base, fine = saved(model, "base"), saved(trained(model, ["q_proj"]), "tuned")
    run("base", "add", base, "--name", "acme/small")
    words = ("extract", fine, "--base", "acme/small", "--energy", 0.9, "--dtype", "bf16", "-o", "acme/lora")
    answer = run(*words, "--json")
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)
    assert said["kept_energy"] >= 0.9
    assert said["merged_back"]["relative_error"] < 0.4
    assert len(said["modules"]) == 2
    version = connect().versions.get(Ref.parse("acme/lora"))
    assert (version.base_name, version.base_status) == ("acme/small", "verified")
    again = run(*words, "--no-verify")
    assert "already has exactly this adapter; no new version" in again.stderr


def test_extract_without_rank_or_energy_asks_for_one(saved: Saved, tmp_path: Path) -> None:
    model = model_of("llama")
    base = saved(model, "base")
    answer = run("extract", base, "--base", base, "-o", tmp_path / "lora")
    assert answer.exit_code == 2
    assert "--rank N or --energy SHARE" in answer.stderr


def test_each_tensors_error_is_relative_to_its_change_by_training(saved: Saved, tmp_path: Path) -> None:
    model = model_of("llama")
    base, fine = saved(model, "base"), saved(trained(model, ["q_proj", "up_proj"]), "tuned")
    words = ("extract", fine, "--base", base, "--rank", 4, "--modules", "q_proj", "-o", tmp_path / "lora")

    said = json.loads(run(*words, "--json").stdout)

    back = {each["tensor"]: each["relative_error"] for each in said["merged_back"]["tensors"]}
    lost = {each["module"]: (each["lost"] / each["energy"]) ** 0.5 for each in said["modules"]}
    for module, share in lost.items():
        assert abs(back[f"{module}.weight"] - share) < 1e-4
    assert back["model.layers.0.mlp.up_proj.weight"] == 1.0


def test_a_larger_vocabulary_is_reported_with_the_option_to_merge_it(saved: Saved, tmp_path: Path) -> None:
    model = model_of("llama")
    base = saved(model, "base")
    larger = trained(model, ["q_proj"])
    larger.resize_token_embeddings(108)
    fine = saved(larger, "tuned")

    told = run("extract", fine, "--base", base, "--rank", 4, "-o", tmp_path / "lora").stderr

    assert "the vocabulary has 108 rows, but the base's 100: use `adaptry merge --resize-vocab`" in told
    assert "an adapter cannot represent this" not in told
