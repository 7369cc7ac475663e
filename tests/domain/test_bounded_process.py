"""Child processes with limits: a result within the limits, or an error that names the exceeded limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adaptry.core.processes.bounded import (
    NICENESS,
    ProcessFailed,
    ProcessLimits,
    ProcessTimeout,
    run_bounded,
    start_children_at_lowest_priority,
)

LIMITS = ProcessLimits(seconds=0.5, memory=256 << 20, answer=1000)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Writes a module that a child can run, and returns its name."""
    monkeypatch.setattr("adaptry.core.processes.bounded._ROOT", str(tmp_path))

    def write(source: str) -> str:
        (tmp_path / "task.py").write_text(source)
        return "task"

    return write


def test_a_childs_answer_is_its_modules_output(module) -> None:  # type: ignore[no-untyped-def]
    name = module("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])")
    assert run_bounded(name, b"abc" * 100_000, ProcessLimits(5, answer=1 << 20)) == b"cba" * 100_000


def test_processor_time_is_limited_if_signals_are_ignored(module) -> None:  # type: ignore[no-untyped-def]
    name = module("import re; re.fullmatch('(a|a)*b', 'a' * 60)")
    with pytest.raises(ProcessTimeout, match=r"0\.5 s of processor time"):
        run_bounded(name, b"", LIMITS)


def test_memory_is_bounded(module) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ProcessFailed, match="256 MiB"):
        run_bounded(module("bytearray(1 << 30)"), b"", LIMITS)


def test_an_answer_over_the_limit_is_refused(module) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ProcessFailed, match="1,001 bytes"):
        run_bounded(module("print('x' * 1000)"), b"", LIMITS)


def test_a_crash_is_reported_with_its_exit_code(module) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ProcessFailed, match="code 3"):
        run_bounded(module("import os; os._exit(3)"), b"", LIMITS)
    with pytest.raises(ProcessFailed, match="code -11"):
        run_bounded(module("import os; os.kill(os.getpid(), 11)"), b"", LIMITS)
    with pytest.raises(ProcessFailed, match="code 1"):
        run_bounded(module("raise ValueError"), b"", LIMITS)


def test_a_child_may_leave_its_request_unread(module) -> None:  # type: ignore[no-untyped-def]
    assert run_bounded(module("print('no')"), b"x" * (4 << 20), LIMITS) == b"no\n"


def test_a_child_inherits_given_files_and_no_secret(  # type: ignore[no-untyped-def]
    module, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("ADAPTRY_TOKEN", "secret")
    (tmp_path / "data").write_bytes(b"weights")
    name = module("import os, sys; print(os.pread(int(sys.argv[1]), 7, 0), 'ADAPTRY_TOKEN' in os.environ)")
    with (tmp_path / "data").open("rb") as file:
        number = os.dup(file.fileno())
        try:
            assert (
                run_bounded(name, b"", LIMITS, arguments=[str(number)], descriptors=[number])
                == b"b'weights' False\n"
            )
        finally:
            os.close(number)


def test_installed_packages_are_available_only_on_request(module) -> None:  # type: ignore[no-untyped-def]
    name = module("import importlib.util; print(importlib.util.find_spec('pydantic') is not None)")
    assert run_bounded(name, b"", LIMITS) == b"False\n"
    assert run_bounded(name, b"", ProcessLimits(5), needs_packages=True) == b"True\n"


def test_a_child_runs_at_a_lower_priority_than_its_caller(module) -> None:  # type: ignore[no-untyped-def]
    niceness = int(run_bounded(module("import os; print(os.nice(0))"), b"", LIMITS))
    assert niceness > os.nice(0)


def test_servers_children_have_lowest_priority(module, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("adaptry.core.processes.bounded._priority.niceness", NICENESS)  # restored afterwards
    start_children_at_lowest_priority()
    assert run_bounded(module("import os; print(os.nice(0))"), b"", LIMITS) == b"19\n"
