"""Records which quick tests run each line of the product, and finds the tests that run a mutant's line.

Only what a test runs in its own process is recorded: lines that run only in programs that tests start have
no covering tests.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import coverage
import pytest

from .copy_of_tree import PACKAGES


def record(folder: Path, part: int, parts: int) -> int:
    """Runs every Nth quick test from the Kth, and keeps coverage by test, and durations, in `folder`."""
    recorded = coverage.Coverage(data_file=_coverage(folder, part), source=list(PACKAGES))
    recorded.set_option("run:relative_files", True)  # each part has a tree of its own
    recorded._warn_no_data = False
    recorder = _Recorder(recorded, part, parts)
    recorded.start()
    plugins = [word for name in ("randomly", "cacheprovider", "xdist") for word in ("-p", f"no:{name}")]
    code = pytest.main(["-q", *plugins, "-m", "not slow and not heavy", "tests"], plugins=[recorder])
    recorded.stop()
    recorded.save()
    _durations(folder, part).write_text(json.dumps(recorder.seconds))
    return code


def _coverage(folder: Path, part: int | str) -> str:
    return str(folder / f"coverage-{part}.sqlite")


def _durations(folder: Path, part: int | str) -> Path:
    return folder / f"durations-{part}.json"


class _Recorder:
    """A plugin that names the running test to coverage."""

    def __init__(self, recorded: coverage.Coverage, part: int, parts: int) -> None:
        self._recorded, self._part, self._parts = recorded, part, parts
        self.seconds: dict[str, float] = defaultdict(float)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = items[self._part - 1 :: self._parts]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._recorded.switch_context(nodeid)

    def pytest_runtest_logfinish(self) -> None:
        self._recorded.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration


class CoveringTests:
    """The data that `record` stored, from all parts."""

    def __init__(self, folder: Path) -> None:
        self._data = [coverage.CoverageData(str(path)) for path in sorted(folder.glob("coverage-*.sqlite"))]
        for data in self._data:
            data.read()
        self._seconds: dict[str, float] = {}
        for path in folder.glob("durations-*.json"):
            self._seconds |= json.loads(path.read_text())

    def of(self, file: str, line: int) -> list[str]:
        """The covering tests, quickest first, with one case of each test before a second case of any."""
        tests = {test for data in self._data for test in self._contexts(data, file).get(line, []) if test}
        seen: Counter[str] = Counter()
        order: list[tuple[int, float, str]] = []
        for test in sorted(tests, key=lambda test: self._seconds.get(test, 0.0)):
            function = test.partition("[")[0]
            order.append((seen[function], self._seconds.get(test, 0.0), test))
            seen[function] += 1
        return [test for _, _, test in sorted(order)]

    def _contexts(self, data: coverage.CoverageData, file: str) -> dict[int, list[str]]:
        return data.contexts_by_lineno(file)

    def lines(self) -> dict[str, set[int]]:
        """Lines that ran in a test or at import, by file from the root of the tree."""
        ran: dict[str, set[int]] = defaultdict(set)
        for data in self._data:
            for file in data.measured_files():
                ran[file].update(data.lines(file) or [])
        return ran
