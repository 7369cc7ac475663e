"""Runs a script in the environment of another tool, whose dependencies conflict with ours.

`make environments` creates these environments; an environment variable can name the Python of another one.
Without either, the tests are skipped, and the reason names the tool.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., None])
_MADE = Path(__file__).parents[2] / ".venvs"


@dataclass(frozen=True, slots=True)
class OtherEnvironment:
    """The environment called `name`; `script` is a path relative to this file's folder."""

    name: str
    script: str

    @property
    def variable(self) -> str:
        return f"{self.name.upper()}_PYTHON"

    @property
    def python(self) -> str:
        """The environment's Python; empty if there is none."""
        made = _MADE / self.name
        return os.environ.get(self.variable) or (
            str(made / "bin" / "python") if (made / "made").exists() else ""
        )

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        reason = (
            f"no environment for {self.name}: `make environments` makes it, or {self.variable} names its"
            " Python"
        )
        return [pytest.mark.heavy, pytest.mark.skipif(not self.python, reason=reason)]

    def needed(self, test: Test) -> Test:
        """Decorates a test that needs the environment, in a module whose other tests do not."""
        for mark in self.marks:
            test = mark(test)
        return test

    def command(self, *arguments: str | Path) -> list[str | Path]:
        """The command that runs the script there."""
        return [self.python, Path(__file__).parent / self.script, *arguments]

    def run(self, *arguments: str | Path) -> list[Any]:
        """Runs the script; returns the JSON in its last line, or None."""
        # PYTHONPATH is for our Python, and theirs is a different one.
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        run = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False, env=env)
        assert run.returncode == 0, run.stderr[-2000:]
        told: list[Any] = json.loads((run.stdout.splitlines() or ["[]"])[-1])
        return told
