"""The real command line, run in this process on an embedded registry for each test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner, Result

from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry_cli.main import main

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("push", "./out", "acme/tone")` runs the command in the test's own folder; `code` is the expected
    exit code.
    """
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def call(*words: str, code: int = 0, stdin: str | IO[bytes] | None = None) -> Result:
        result = runner.invoke(main, words, input=stdin)
        assert result.exit_code == code, f"{result.exit_code}: {result.output}{result.exception!r}"
        return result

    return call


@pytest.fixture
def answer(run: Run) -> Callable[..., Any]:
    """Like `run`, with `--json`; returns the parsed output. (`Any`: JSON.)"""
    return lambda *words, code=0: json.loads(run(*words, "--json", code=code).stdout)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """`./out`: an adapter for `org/tiny`."""
    return tiny_lora(tmp_path / "out")


@pytest.fixture
def better(tmp_path: Path) -> Path:
    """`./better`: another adapter for `org/tiny`, with a larger rank."""
    return tiny_lora(tmp_path / "better", rank=8, seed=2)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """`./base`: the base on which the adapters were trained."""
    return tiny_base(tmp_path / "base")
