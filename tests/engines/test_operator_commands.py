"""The operator's commands: what a failed `--prepare` leaves behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from adaptry.core.errors import CheckFailed
from adaptry.integrations.serving.engines import OperatorCommands

_MODEL = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'model.safetensors').touch()"
_ENDS = f"{_MODEL}; sys.exit(3)"


@pytest.mark.parametrize(
    ("program", "error"), [(_MODEL, "wrote no .gguf file"), (_ENDS, "ended with 3")], ids=["model", "failure"]
)
def test_a_command_that_makes_no_adapter_file_leaves_nothing(
    tmp_path: Path, program: str, error: str
) -> None:
    """It may have written a whole model, and is tried again."""
    (tmp_path / "adapter").mkdir()
    commands = OperatorCommands(prepare=(sys.executable, "-c", program, "{file}"))
    for _ in range(2):
        with pytest.raises(CheckFailed, match=error):
            commands.prepare_file(tmp_path / "adapter", "adapter.gguf")
        assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
