"""Pages whose first block of commands runs as it is written, in the order shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from adaptry.testing.samples import tiny_base, tiny_lora

DOCS = Path(__file__).parents[2] / "docs"
pytestmark = pytest.mark.slow


def first_block(page: str) -> list[list[str]]:
    block = re.search(
        r"^```sh\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert block is not None
    lines = [shlex.split(line, comments=True) for line in block[1].replace("\\\n", " ").splitlines()]
    return [words[1:] for words in lines if words[:1] == ["adaptry"]]


@pytest.mark.parametrize("page", ["gc.md", "merging.md", "search.md", "states.md"])
def test_the_first_commands_of_a_page_run_as_written(run, page: str) -> None:
    tiny_base(Path("base"))
    tiny_lora(Path("out"), base_name="./base")
    run("base", "add", "./base", "--name", "org/model")
    run("push", "./out", "acme/tone", "--alias", "prod")
    run("push", "./out", "acme/facts")
    for seed in (2, 3, 4):
        tiny_lora(Path(f"out-{seed}"), base_name="./base", seed=seed)
        run("push", f"./out-{seed}", "acme/tone")

    commands = first_block(page)

    assert len(commands) >= 2
    for words in commands:
        run(*words)
