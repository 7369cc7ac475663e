"""`adaptry lock`, and pulling what it pins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("out", "better")


def test_a_locked_pull_ignores_alias_moves(run, tmp_path: Path) -> None:
    first = run("push", "./out", "acme/tone", "--alias", "prod").stdout.split()[1]
    assert run("lock", "acme/tone@prod").stdout == f"acme/tone@prod {first}\n"
    run("push", "./better", "acme/tone", "--alias", "prod")

    pulled = run("pull", "--locked", "adaptry.lock", "--to", "models").stdout

    assert pulled == f"{Path('models/acme/tone@prod')} {first}\n"
    config = json.loads((tmp_path / "models/acme/tone@prod/adapter_config.json").read_text())
    assert config["r"] == 4


def test_a_check_of_the_lock_lists_moved_refs(run) -> None:
    run("push", "./out", "acme/tone", "--alias", "prod")
    run("lock", "acme/tone@prod", "acme/tone@1")
    assert run("lock", "--check").stdout == ""
    run("push", "./better", "acme/tone", "--alias", "prod")

    moved = run("lock", "--check", code=1).stdout

    assert moved.startswith("acme/tone@prod was locked at version 1")
    assert "version 2" in moved
    assert moved.count("\n") == 1
