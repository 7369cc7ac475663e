"""The README's quickstart, line by line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from adaptry.testing.samples import tiny_base, tiny_lora

README = Path(__file__).parents[2] / "README.md"


def quickstart() -> list[list[str]]:
    """The commands of the first block under Quickstart."""
    section = README.read_text(encoding="utf-8").partition("## Quickstart")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    lines = [shlex.split(line, comments=True) for line in block[1].splitlines()]
    return [words for words in lines if words]


def test_the_quickstart_runs_as_written_without_a_warning(run) -> None:
    """PEFT writes the base's path into the config, as training from a folder does."""
    tiny_base(Path("base"))
    tiny_lora(Path("out"), base_name="./base")
    tiny_lora(Path("out-2"), base_name="./base", rank=8, seed=2)

    for words in quickstart():
        assert words[0] == "adaptry"
        messages = run(*words[1:]).stderr
        assert "warn" not in messages, (words, messages)
    assert "no findings" in run("check", "./out").stderr
    assert run("show", "acme/tone@prod").stdout.split()[:2] == ["version", "acme/tone@1"]
    assert sorted(path.name for path in Path("tone").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
