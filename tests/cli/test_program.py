"""The program as a process: its imports, exit codes, crashes, and broken output streams."""

from __future__ import annotations

import errno
import io
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adaptry.core.errors import AdaptryError, by_code
from adaptry.testing.samples import tiny_lora
from adaptry_cli.exit_codes import EXIT_CODES, FAULT, MEANINGS, exit_code
from adaptry_cli.main import COMMANDS

ADAPTRY = [sys.executable, "-m", "adaptry_cli"]
HEAVY = ["torch", "boto3", "sqlmodel", "sqlalchemy", "alembic", "pydantic", "rich", "urllib3", "platformdirs"]


def test_help_imports_nothing_but_click() -> None:
    script = f"""
import sys
from adaptry_cli.main import main
try:
    main(["--help"])
finally:
    found = [name for name in {HEAVY!r} if name in sys.modules]
    print(found, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert done.stderr == "[]\n"
    assert "push" in done.stdout


def test_daily_commands_import_no_more_of_adaptry_than_their_budget() -> None:
    """Imports are counted, not timed. Those of an embedded or remote registry come in addition."""
    budgets = {"ls": 25, "pull": 40, "push": 41}  # in this order: each imports what the previous one imports
    script = f"""
import importlib, sys
for command in {[*budgets]!r}:
    importlib.import_module(f"adaptry_cli.{{command}}")
    ours = sum(name.partition(".")[0] in ("adaptry", "adaptry_cli", "adaptry_api") for name in sys.modules)
    print(command, ours, *sorted({{"sqlalchemy", "urllib3", "numpy", "torch"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    for line, (command, budget) in zip(done.stdout.splitlines(), budgets.items(), strict=True):
        name, count, *heavy = line.split()
        assert (name, heavy) == (command, [])
        assert int(count) <= budget, line


def test_ctrl_c_while_the_program_is_loading_prints_no_traceback() -> None:
    script = """
import sys
class Interrupted:
    def find_spec(self, name, *rest):
        if name == "adaptry_cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from adaptry_cli.__main__ import run
run()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (130, "interrupted: nothing was changed\n")


def _imports_of(words: list[str], unused: list[str]) -> int:
    """The number of our modules that a command imports. Requires that it imports none of `unused`."""
    script = f"""
import sys
from adaptry_cli.main import main
try:
    main({words!r})
finally:
    ours = sum(name.partition(".")[0] in ("adaptry", "adaptry_cli") for name in sys.modules)
    print(ours, *(name for name in {unused!r} if name in sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    count, *found = done.stderr.splitlines()[-1].split()
    assert (done.returncode, found) == (0, [])
    return int(count)


def test_a_command_on_a_folder_imports_the_roles_that_it_uses(home: Path) -> None:
    """Imports are counted, not timed. The first command creates the registry, so it opens all of it."""
    unused = ["adaptry.checks", "adaptry.registry.job_types", "adaptry.adapters.methods", "urllib3"]

    assert _imports_of(["ls"], unused) <= 164
    without = ["pydantic", "sqlalchemy", "sqlmodel", "alembic", "concurrent.futures", "difflib"]
    assert _imports_of(["ls"], [*unused, *without]) <= 40


def test_listing_the_versions_of_an_adapter_imports_no_sqlalchemy(home: Path, run, out: Path) -> None:
    """Imports are counted, not timed."""
    run("push", "./out", "acme/tone")

    assert _imports_of(["ls", "acme/tone"], ["sqlalchemy", "sqlmodel", "alembic"]) <= 60


def test_pulling_from_a_folder_imports_neither_sqlalchemy_nor_pydantic(home: Path, run, out: Path) -> None:
    """Imports are counted, not timed."""
    run("push", "./out", "acme/tone")

    unused = ["pydantic", "sqlalchemy", "sqlmodel", "alembic", "concurrent.futures", "urllib3", "numpy"]
    assert _imports_of(["pull", "acme/tone", "--to", "./pulled"], unused) <= 57


def test_pushing_into_a_folder_imports_neither_sqlalchemy_nor_pydantic(home: Path, run, out: Path) -> None:
    """Imports are counted, not timed."""
    run("push", "./out", "acme/tone")

    search = ["adaptry.storage.catalog.search", "adaptry.core.query", "adaptry.core.query_terms"]
    gates = ["adaptry.storage.local.gates", "adaptry.core.gates.evaluation", "adaptry.checks.runtimes"]
    database = ["sqlalchemy", "sqlmodel", "alembic", "adaptry.storage.catalog.rows"]
    unused = [*search, *gates, *database, "adaptry.storage.local.principals", "urllib3", "numpy", "torch"]
    assert _imports_of(["push", "./out", "acme/other"], [*unused, "pydantic"]) <= 198
    assert _imports_of(["push", "./out", "acme/tone", "--metric", "loss=0.5"], unused) <= 188


def test_only_commands_that_compute_import_torch(out: Path, tmp_path: Path) -> None:
    script = """
import sys
from adaptry_cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""
    combine = ["jobs", "submit", "combine", "inputs=acme/tone", "to=acme/both", "method=ties"]
    for words in (
        ["push", "./out", "acme/tone"],
        ["check", "./out"],
        ["ls"],
        ["search", "method:lora"],
        combine,
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.stderr.splitlines()[-1] == "False"
        assert done.returncode == 0


def test_every_error_has_an_exit_code_that_is_documented() -> None:
    for kind in by_code().values():
        code = exit_code(kind("a sentence"))
        assert code in MEANINGS
        assert (code == FAULT) == (kind is AdaptryError)
    assert {code for _, code in EXIT_CODES} <= MEANINGS.keys()


class Interrupting(io.BytesIO):
    """A person who presses Ctrl-C instead of typing."""

    def read1(self, size: int | None = -1) -> bytes:
        raise KeyboardInterrupt


def test_an_interrupted_command_has_its_own_exit_code(run) -> None:
    result = run("login", "https://registry.example", stdin=Interrupting(), code=130)

    assert "Traceback" not in result.stderr


def test_a_bug_is_reported_in_one_line_by_default(run, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: Any = COMMANDS["Set up this machine"]
    monkeypatch.setitem(commands, "doctor", ("nowhere:doctor", ""))

    result = run("doctor", code=70)

    assert result.stderr.startswith("error: ModuleNotFoundError")
    assert "ADAPTRY_DEBUG=1" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_closed_pipe_is_not_an_error(out: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*ADAPTRY, "inspect", "./out"],
        cwd=tmp_path,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)

    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("words", [["inspect", "./out"], ["ls"], ["--help"]], ids=" ".join)
def test_output_that_cannot_be_written_is_an_error(out: Path, tmp_path: Path, words: list[str]) -> None:
    subprocess.run([*ADAPTRY, "push", "./out", "acme/tone"], cwd=tmp_path, check=True, capture_output=True)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*ADAPTRY, *words], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
        both = subprocess.run([*ADAPTRY, *words], cwd=tmp_path, stdout=full, stderr=full, check=False)

    assert (done.returncode, both.returncode) == (6, 6)
    assert done.stderr == "error: no space left where the output goes; free some space and try again\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX closes the streams")
def test_a_closed_stream_is_not_an_error(out: Path, tmp_path: Path) -> None:
    for words, closed in (
        ("push ./out acme/tone", ">&-"),
        ("ls", ">&-"),
        ("ls", "2>&-"),
        ("ls", "<&- >&- 2>&-"),
    ):
        done = subprocess.run(
            ["/bin/sh", "-c", f'"$0" -m adaptry_cli {words} {closed}', sys.executable],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0
        assert "error" not in done.stderr


def test_doctor_finds_nothing_wrong_here(answer) -> None:
    assert {one["verdict"] for one in answer("doctor")} <= {"ok", "warns"}


def test_doctor_reports_required_repairs(run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    result = run("doctor", "--registry", "./file/registry", code=1)

    assert "fails" in result.stdout
    assert "is a file" in result.stdout


def test_doctor_reports_a_full_disk(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    result = run("doctor", "--registry", "./registry", code=1)

    assert f"no space left for {Path('registry')}" in result.stdout
    assert "None" not in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_script_for_every_shell_is_printed(run) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_ADAPTRY_COMPLETE" in run("completion", shell).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file modes")
def test_a_saved_token_is_readable_only_by_its_user(home: Path) -> None:
    from adaptry.core import credentials

    path = credentials.save_token("https://registry.example/", "adr_pat_x")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert credentials.token_for("https://registry.example") == "adr_pat_x"
    assert credentials.remove_token("https://registry.example")
    assert credentials.token_for("https://registry.example") is None


def test_a_package_that_is_installed_but_cannot_be_imported_is_named(tmp_path: Path) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text(
        'raise ImportError("libcudart.so.13: cannot open shared object file")'
    )
    words = ["resize", str(tiny_lora(tmp_path / "tone")), "--rank", "1", "-o", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*ADAPTRY, *words], capture_output=True, text=True, check=False, env=environment)

    assert done.returncode == 8
    assert "torch is installed, but cannot be imported (libcudart.so.13" in done.stderr
    assert "pip install --force-reinstall torch" in done.stderr
