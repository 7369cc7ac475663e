"""`adaptry eval` without lm-eval, and results in the inbox."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from adaptry.storage.connect import open_local
from adaptry.testing.contract.inbox import RESULTS, lm_eval_results

Run = Callable[..., Result]
Answer = Callable[..., Any]


def test_a_dry_run_prints_lines_that_name_the_version_by_its_digest(
    run: Run, answer: Answer, out: Path, tmp_path: Path
) -> None:
    run("push", "./out", "acme/tone", "--alias", "prod")
    digest = answer("show", "acme/tone@prod")["version"]["digest"]
    printed = run("eval", "acme/tone@prod", "--task", "gsm8k", "--limit", "5", "--base", "org/b", "--dry-run")
    fetch, evaluate, add = printed.stdout.splitlines()
    assert fetch == f"adaptry pull acme/tone@{digest} --to acme/tone@{digest}"
    assert f"--model hf --model_args pretrained=org/b,peft=acme/tone@{digest} --device cpu" in evaluate
    assert evaluate.endswith("--tasks gsm8k --batch_size 1 --output_path results --log_samples --limit 5")
    assert add == f"adaptry evidence add acme/tone@{digest} results"
    engine = run("eval", "acme/tone@1", "--task", "gsm8k", "--engine", "http://e:8000/v1", "--dry-run").stdout
    brief = digest[:19]
    assert f"local-completions --model_args model=acme/tone@{brief},base_url=http://e:8000/v1/comp" in engine


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (("--task", "a,b"), "tasks", 2),
        (
            ("--task", "caps", "--base", "a=b"),
            "lm-eval accepts no comma, equals sign or quotation mark in 'a=b'",
            2,
        ),
        (("--task", "caps", "--base", "org/b"), "pip install 'adaptry[eval]'", 8),
    ],
)
def test_an_impossible_evaluation_is_refused_with_the_reason(
    run: Run,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: tuple[str, ...],
    says: str,
    code: int,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without lm_eval
    run("push", "./out", "acme/tone")
    assert says in run("eval", "acme/tone", *words, code=code).stderr


def test_results_that_were_kept_apart_are_listed_attached_and_discarded(
    run: Run, answer: Answer, out: Path
) -> None:
    run("push", "./out", "acme/tone")
    with open_local(Path(os.environ["ADAPTRY_HOME"])) as registry:
        first = registry.inbox.post("acme", RESULTS, lm_eval_results("./out")).id
        second = registry.inbox.post("acme", RESULTS, lm_eval_results("./other", value=0.25)).id
    listed = run("evidence", "inbox", "acme").stdout
    assert "./out" in listed
    assert "does not state which version" in listed
    assert "added 2 values to acme/tone@1" in run("evidence", "attach", str(first), "acme/tone@1").stderr
    run("evidence", "discard", str(second))
    assert "the inbox of acme is empty" in run("evidence", "inbox", "acme").stderr
    assert f"no results {second}" in run("evidence", "discard", str(second), code=3).stderr
    assert answer("evidence", "inbox", "acme") == []
