"""The operator's commands: the files that `--prepare` makes, and those that a failed command leaves
behind.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from adaptry.core.errors import CheckFailed
from adaptry.integrations.serving.engines import OperatorCommands

from .conftest import Scene, settle

_MODEL = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'model.safetensors').touch()"
_COPY = "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])"
_ADAPTER = "import shutil, sys; shutil.copyfile(sys.argv[1] + '/adapter_model.safetensors', sys.argv[2])"
_ENDS = f"{_MODEL}; sys.exit(3)"


@pytest.mark.parametrize(
    ("program", "error"), [(_MODEL, "wrote no .gguf file"), (_ENDS, "ended with 3")], ids=["model", "failure"]
)
def test_a_command_that_makes_no_adapter_file_leaves_nothing(
    tmp_path: Path, program: str, error: str
) -> None:
    """The command may have written a whole model, and is tried again."""
    (tmp_path / "adapter").mkdir()
    commands = OperatorCommands(prepare=(sys.executable, "-c", program, "{file}"))
    for _ in range(2):
        with pytest.raises(CheckFailed, match=error):
            commands.prepare_file(tmp_path / "adapter", "adapter.gguf")
        assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_engine_loads_what_the_present_prepare_command_makes(scene: Scene) -> None:
    engine = scene.engine("llamacpp")
    scene.alias(scene.publish(1))
    settle(scene.worker(engine))
    assert scene.serves(engine) == 1

    second = scene.publish(2)
    (weights,) = (scene.folder / "lora-tone-2").glob("*.safetensors")
    scene.prepare = (sys.executable, "-c", _COPY, str(weights), "{file}")
    settle(scene.worker(engine))
    assert scene.serves(engine) == second.number
    assert len(engine.names()) == 1


def test_a_changed_program_behind_the_same_prepare_command_prepares_every_adapter_again(scene: Scene) -> None:
    """The cache has the files of the earlier program, which may be wrong."""
    engine = scene.engine("llamacpp")
    program = scene.folder / "convert.py"
    program.write_text(_ADAPTER)
    scene.prepare = (sys.executable, str(program), "{folder}", "{file}")
    scene.alias(scene.publish(1))
    settle(scene.worker(engine))
    settle(scene.worker(engine))
    assert scene.serves(engine) == 1

    second = scene.publish(2)
    (weights,) = (scene.folder / "lora-tone-2").glob("*.safetensors")
    program.write_text(f"import shutil, sys; shutil.copyfile({str(weights)!r}, sys.argv[2])")
    settle(scene.worker(engine))
    assert scene.serves(engine) == second.number
    assert len(engine.names()) == 1
