"""`import` of a folder tree: each training run becomes an adapter, each of its checkpoints a version."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import pytest

from adaptry.testing.samples import tiny_lora

KEY, VALUE = b"general.type", b"adapter"
GGUF_ADAPTER = (
    struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, len(KEY)) + KEY + struct.pack("<IQ", 8, len(VALUE)) + VALUE
)
"""The head of an adapter's GGUF file, with its type as the only metadata."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """`./runs`: two runs with checkpoints; the end of one is in the run's folder, that of the other in
    `final`, and equals its first checkpoint.
    """
    for step in (10, 2):
        checkpoint = tiny_lora(tmp_path / "runs" / "tone" / f"checkpoint-{step}", seed=step)
        log = [{"step": step, "eval_loss": 1 / step}]
        (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": log}))
    tiny_lora(tmp_path / "runs" / "tone", seed=20)
    for step in (1, 2):
        tiny_lora(tmp_path / "runs" / "fäcts 1" / f"checkpoint-{step}", rank=8, seed=step)
    shutil.copytree(tmp_path / "runs/fäcts 1/checkpoint-1", tmp_path / "runs/fäcts 1/final")
    return tmp_path / "runs"


def test_runs_become_adapters_and_checkpoints_versions_in_the_order_of_steps(run, answer, runs: Path) -> None:
    told = run("import", "./runs", "--to", "acme")

    assert [line.split()[0] for line in told.stdout.splitlines()] == [
        "acme/facts-1@1",
        "acme/facts-1@2",
        "acme/tone@1",
        "acme/tone@2",
        "acme/tone@3",
    ]
    assert [line.split(" ", 2)[2] for line in told.stdout.splitlines()] == [
        "fäcts 1/checkpoint-2",
        "fäcts 1/final",
        "tone/checkpoint-2",
        "tone/checkpoint-10",
        "tone",
    ]
    assert "fäcts 1/checkpoint-1 is the same as fäcts 1/final" in told.stderr
    assert "5 versions imported, 0 already there, 1 the same as another, 0 failed" in told.stderr
    (loss,) = answer("evidence", "ls", "acme/tone@2")
    assert (loss["metric"], loss["value"], loss["step"]) == ("eval_loss", 0.1, 10)
    run("pull", "acme/tone@1", "--to", "./pulled")
    assert Path("pulled", WEIGHTS).read_bytes() == (runs / "tone" / "checkpoint-2" / WEIGHTS).read_bytes()


def test_a_repeated_import_adds_only_what_is_new(run, answer, runs: Path) -> None:
    run("import", "./runs", "--to", "acme")
    (runs / "tone" / "README.md").write_text("# A description, which is beside the adapter\n")
    tiny_lora(runs / "tone" / "checkpoint-30", seed=30)

    again = answer("import", "./runs", "--to", "acme")["versions"]

    assert [(one["path"], one["number"]) for one in again if one["is_new"]] == [("tone/checkpoint-30", 4)]
    assert [one["number"] for one in again if one["name"] == "acme/tone"] == [1, 2, 4, 3]


def test_a_dry_run_shows_the_versions_and_makes_none(run, answer, runs: Path, tmp_path: Path) -> None:
    rows = [line.split() for line in run("import", "./runs", "--to", "acme", "--dry-run").stdout.splitlines()]

    assert rows[4:] == [
        ["tone/checkpoint-2", "acme/tone", "2", "org/tiny"],
        ["tone/checkpoint-10", "acme/tone", "10", "org/tiny"],
        ["tone", "acme/tone", "org/tiny"],
    ]
    run("import", "./runs", "--to", "acme")
    shown = answer("import", "./runs", "--to", "acme", "--dry-run")["versions"]
    assert [one["number"] for one in shown] == [None, 1, 2, 1, 2, 3]
    assert "already acme/tone@3" in run("import", "./runs", "--to", "acme", "--dry-run").stdout


def test_adapters_that_cannot_be_imported_are_listed_at_the_end_with_reasons(run, answer, runs: Path) -> None:
    nan = ("F32", (16, 4), b"\x00\x00\xc0\x7f" * 64)
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    tiny_lora(runs / "diverged", extra={key: nan})
    cut = tiny_lora(runs / "a-cut") / WEIGHTS
    cut.write_bytes(cut.read_bytes()[:-64])

    told = run("import", "./runs", "--to", "acme", code=1)

    assert "failed: runs/a-cut: adapter_model.safetensors: the byte range of" in told.stderr
    assert "failed: runs/diverged: " in told.stderr and "[weights_nan]" in told.stderr
    assert "5 versions imported, 0 already there, 1 the same as another, 2 failed" in told.stderr
    failed = [one for one in answer("import", "./runs", "--to", "acme", code=1)["versions"] if one["error"]]
    assert [(one["path"], one["error"]["code"]) for one in failed] == [
        ("a-cut", "invalid_weights"),
        ("diverged", "refused"),
    ]


def test_the_bases_are_listed_with_the_command_that_registers_them(run, base: Path, runs: Path) -> None:
    path = json.loads((runs / "tone" / CONFIG).read_text()) | {"base_model_name_or_path": "./base"}
    (runs / "tone" / CONFIG).write_text(json.dumps(path))

    told = run("import", "./runs", "--to", "acme").stderr

    command = f"adaptry base add {base} --name acme/base"
    loading = "not registered, so engines do not load its adapters; register it"
    assert f"base of 1 adapter: {base} ({loading}: {command})" in told
    assert f"base of 4 adapters: org/tiny ({loading}: adaptry base add FOLDER --name org/tiny" in told
    run(*command.split()[1:])
    told = run("import", "./runs", "--to", "acme").stderr
    assert "base of 1 adapter: acme/base (registered)" in told
    run("base", "add", "./base", "--name", "org/tiny")
    assert "base of 4 adapters: org/tiny (registered)" in run("import", "./runs", "--to", "acme").stderr


def test_a_base_whose_name_is_a_shell_command_is_not_part_of_a_command(run, runs: Path) -> None:
    shutil.rmtree(runs / "tone")
    tiny_lora(runs / "hostile", base_name="org/tiny; touch owned")

    told = run("import", "./runs/hostile", "--to", "acme").stderr

    assert "base of 1 adapter: org/tiny; touch owned" in told
    assert "register it: adaptry base add FOLDER --name NAME;" in told
    tiny_lora(runs / "nameless", base_name="")
    told = run("import", "./runs/nameless", "--to", "acme").stderr
    assert "engines do not load 1 adapter, because no base is named; name it: adaptry base add" in told


def test_results_files_that_are_links_elsewhere_are_named_and_not_read(run, answer, runs: Path) -> None:
    results = runs / "tone" / "checkpoint-2" / "trainer_state.json"
    results.rename(runs.parent / "elsewhere.json")
    results.symlink_to(runs.parent / "elsewhere.json")

    told = run("import", "./runs/tone", "--to", "acme")

    assert "checkpoint-2: not added as evidence: runs/tone/checkpoint-2/trainer_state.json is a link" in (
        told.stderr
    )
    assert answer("evidence", "ls", "acme/tone@1") == []
    assert len(answer("evidence", "ls", "acme/tone@2")) == 1


@pytest.mark.slow
def test_a_given_base_is_recorded_also_with_versions_that_exist(run, answer, base: Path, runs: Path) -> None:
    for config in runs.rglob(CONFIG):
        fields = json.loads(config.read_text()) | {"base_model_name_or_path": "/elsewhere/model"}
        config.write_text(json.dumps(fields))
    assert "/elsewhere/model (not registered" in run("import", "./runs", "--to", "acme").stderr
    run("base", "add", "./base", "--name", "org/tiny")

    told = run("import", "./runs", "--to", "acme", "--base", "org/tiny")

    assert "0 versions imported, 5 already there" in told.stderr
    assert answer("show", "acme/tone@1")["version"]["base_status"] == "verified"


def test_the_commit_of_main_in_a_hugging_face_cache_is_the_newest_version(answer, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--tone"
    for number in (1, 2, 3):
        tiny_lora(repository / "snapshots" / (str(number) * 40), seed=number)
        os.utime(repository / "snapshots" / (str(number) * 40), (number, number))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("2" * 40)

    planned = answer("import", "./hub", "--to", "acme", "--dry-run")["versions"]

    assert [(one["name"], one["path"][-1]) for one in planned] == [
        ("acme/org-tone", commit) for commit in ("1", "3", "2")
    ]


def test_a_gguf_file_is_left_out_beside_its_adapter_and_refused_without(run, runs: Path) -> None:
    (runs / "tone" / "tone.gguf").write_bytes(GGUF_ADAPTER)
    assert "0 failed" in run("import", "./runs", "--to", "acme").stderr
    (runs / "alone").mkdir()
    (runs / "alone" / "tone.gguf").write_bytes(GGUF_ADAPTER)
    assert "failed: runs/alone/tone.gguf" in run("import", "./runs", "--to", "acme", code=1).stderr


def test_an_import_of_a_folder_needs_a_namespace_and_takes_no_filter(run, runs: Path) -> None:
    file = run("import", f"./runs/tone/{WEIGHTS}", "--to", "acme", code=3).stderr
    assert f"runs/tone/{WEIGHTS} is a file; pass the folder that it is in" in file
    assert "adaptry import ./runs --to NAMESPACE" in run("import", "./runs", code=2).stderr
    assert "apply only to a hub" in run("import", "./runs", "--to", "acme", "--limit", "3", code=2).stderr
    assert "write ./runs for the folder" in run("import", "runs", "--to", "acme", code=2).stderr
    assert "no folder at absent" in run("import", "./absent", "--to", "acme", code=3).stderr
    (runs.parent / "empty").mkdir()
    assert "no adapter in empty" in run("import", "./empty", "--to", "acme", code=3).stderr
