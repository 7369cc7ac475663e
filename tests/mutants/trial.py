"""Tries a mutant: runs tests in a child of this process, which has imported what is slow to import.

Quick tests run before slow ones, and one case of each test before the second case of any. The run stops at
the first failure, or when its processor time is used up. A test counts only if it passes without the mutant.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import coverage
import pytest
from hypothesis import HealthCheck, settings

from .mutant_sample import Mutant
from .page import SECONDS

Verdict = Literal["caught", "survived", "not run"]
TIMEOUT = 900  # seconds: a mutant that hangs is caught
SLOW_TO_LOAD = (
    "alembic", "boto3", "click", "fastapi.testclient", "httpx", "huggingface_hub", "numpy", "pydantic",
    "rich.console", "safetensors.torch", "sqlmodel", "torch", "transformers",
    "transformers.models.llama.modeling_llama", "urllib3", "uvicorn", "yaml",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    verdict: Verdict
    test: str  # the one that failed, or the last one
    count: int  # tests that ran


class Laboratory:
    """A copy of the tree in which one mutant at a time is tried. `TMPDIR` is where tests write."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._sound: dict[str, bool] = {}
        self._times = int(time.time())
        for name in SLOW_TO_LOAD:
            importlib.import_module(name)

    def try_mutant(self, mutant: Mutant, rounds: list[list[str]]) -> Outcome:
        """Runs one round of tests after another, until one fails; later rounds only if none did before."""
        outcomes = []
        for tests in filter(None, rounds):
            outcomes.append(self._try_with(mutant, tests))
            if outcomes[-1].verdict == "caught":
                return outcomes[-1]
        count = sum(outcome.count for outcome in outcomes)
        ran = next((outcome for outcome in outcomes if outcome.verdict == "survived"), outcomes[-1])
        return Outcome(ran.verdict, ran.test, count)

    def _try_with(self, mutant: Mutant, tests: list[str]) -> Outcome:
        path = self._tree / mutant.file
        source = path.read_bytes()
        unsound: list[str] = []
        while True:
            self._write(path, mutant.change.apply(source))
            try:
                outcome = self._run(tests, unsound, mutant)
            finally:
                self._write(path, source)
            if outcome.verdict != "caught" or "::" not in outcome.test or self._is_sound(outcome.test):
                return outcome
            unsound.append(outcome.test)

    def _is_sound(self, test: str) -> bool:
        if test not in self._sound:
            self._sound[test] = self._run([test], [], None).verdict != "caught"
        return self._sound[test]

    def _write(self, path: Path, data: bytes) -> None:
        """Writes the file with a time that differs from that of any compiled version of it."""
        self._times += 1
        path.write_bytes(data)
        os.utime(path, (self._times, self._times))

    def _run(self, tests: list[str], without: list[str], mutant: Mutant | None) -> Outcome:
        report = self._tree.parent / "outcome.json"
        report.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            os.chdir(self._tree)
            log = os.open(self._tree.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(log, stream)
            watcher = _Watcher(without)
            try:
                watcher.run(tests, mutant and (self._tree / mutant.file, mutant.change.line))
                report.write_text(json.dumps([watcher.verdict, watcher.last, watcher.count]))
            except BaseException:  # noqa: BLE001  (a fault of this program, or of the mutant)
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(0)
        deadline = time.monotonic() + TIMEOUT
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return Outcome("caught", "(hangs)", 0)
            time.sleep(0.2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # files that the tests left
        if not report.exists():
            return Outcome("caught", "(the interpreter ends)", 0)
        return Outcome(*json.loads(report.read_text()))


class _Watcher:
    """A plugin that stops the run, and records the outcome."""

    def __init__(self, without: list[str]) -> None:
        self._without = without
        self.verdict: Verdict = "survived"
        self.last = ""
        self.count = 0

    def run(self, tests: list[str], place: tuple[Path, int] | None) -> None:
        settings.register_profile("mutants", deadline=None, suppress_health_check=list(HealthCheck))
        settings.load_profile("mutants")
        recorded = coverage.Coverage(data_file=None, include=[str(place[0])] if place else ["nothing"])
        recorded._warn_no_data = False
        recorded.start()
        ignored = "ignore::pytest.PytestAssertRewriteWarning"  # it was imported before the tests were found
        plugins = [word for name in ("randomly", "cacheprovider", "xdist") for word in ("-p", f"no:{name}")]
        options = ["-x", "-q", "-W", ignored, *plugins, "-m", "not heavy"]
        code = pytest.main([*options, *tests], plugins=[self])
        recorded.stop()
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
            self.verdict, self.last = "caught", "(tests cannot be collected)"
        if self.verdict == "survived" and place:
            ran = recorded.get_data().lines(str(place[0])) or []
            if place[1] not in ran:
                self.verdict = "not run"

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        seen: Counter[str] = Counter()
        turn: dict[str, int] = {}
        for item in items:
            function = item.nodeid.partition("[")[0]
            turn[item.nodeid] = seen[function]
            seen[function] += 1
        items[:] = [item for item in items if item.nodeid not in self._without]
        items.sort(key=lambda item: (item.get_closest_marker("slow") is not None, turn[item.nodeid]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.verdict = "caught"
        if report.failed or report.when == "setup":
            self.last = report.nodeid
        if report.when == "call":
            self.count += 1

    def pytest_runtest_logfinish(self) -> None:
        spent = sum(
            sum(resource.getrusage(whose)[:2]) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        if spent > SECONDS:
            pytest.exit("the time for this mutant is spent", 0)
