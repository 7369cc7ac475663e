"""The code around Hugging Face's own suite: the plugin that runs in it, the table of failures, the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

from .official import page
from .official.classes import CLASSES
from .official.results import Run, compare, read_table

PAGE = Path(__file__).parents[2] / "docs" / "hub-suite.md"
PLUGIN = Path(__file__).with_name("official")
CONFTEST = """
import pytest
from .testing_constants import TOKEN

@pytest.fixture
def token_of_conftest():
    return TOKEN
"""
SUITE = """
import pytest
from huggingface_hub import HfApi, constants, hf_hub_url
from .testing_constants import ENDPOINT_STAGING, TOKEN

def test_passes(token_of_conftest):
    assert token_of_conftest == "ours"
    assert ENDPOINT_STAGING == HfApi().endpoint == constants.ENDPOINT == "http://127.0.0.1:1"
    assert hf_hub_url("a/b", "c").startswith("http://127.0.0.1:1/a/b/") and TOKEN == "ours"

def test_fails():
    assert False, "as it must"

def test_is_skipped():
    pytest.skip("not here")

@pytest.fixture
def broken():
    raise OSError

def test_fails_before_it_begins(broken):
    pass

@pytest.fixture
def untidy():
    yield
    raise OSError

def test_fails_after_it_passed(untidy):
    pass

@pytest.mark.production
def test_of_production():
    pass
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite with the same structure as theirs."""
    tests = tmp_path / "suite" / "tests"
    tests.mkdir(parents=True)
    (tests / "__init__.py").write_text("")
    (tests / "testing_constants.py").write_text('ENDPOINT_STAGING = "theirs"\nTOKEN = "theirs"\n')
    (tests / "conftest.py").write_text(CONFTEST)
    (tests / "test_a.py").write_text(SUITE)
    (tests.parent / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["production"]\n')
    return tests.parent


def run(suite: Path, results: Path, **constants: str) -> subprocess.CompletedProcess[str]:
    settings = {"constants": constants, "results": str(results), "version": version("huggingface-hub")}
    environment = {
        **os.environ,
        "ADAPTRY_OFFICIAL": json.dumps(settings),
        "PYTHONPATH": f"{suite}{os.pathsep}{PLUGIN}",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "plugin",
        "-m",
        "not production",
        "-p",
        "no:cacheprovider",
        "tests",
    ]
    return subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True, check=False)


def test_the_plugin_sets_their_constants_and_records_how_each_test_ended(suite: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    done = run(suite, results, ENDPOINT_STAGING="http://127.0.0.1:1", TOKEN="ours")
    found = Run.read(results)
    assert {
        test.removeprefix("tests/test_a.py::test_"): outcome for test, outcome in found.outcomes.items()
    } == {
        "passes": "passed",
        "fails": "failed",
        "is_skipped": "skipped",
        "fails_before_it_begins": "failed",
        "fails_after_it_passed": "failed",
        "of_production": "deselected",
    }, done.stdout
    assert "as it must" in found.texts["tests/test_a.py::test_fails"]


def test_a_constant_that_the_suite_does_not_have_stops_the_run(suite: Path, tmp_path: Path) -> None:
    done = run(suite, tmp_path / "results.jsonl", ENDPOINT_STAGING="http://127.0.0.1:1", TOKENS="ours")
    assert done.returncode != 0 and "the suite has no constant TOKENS" in done.stderr + done.stdout


def test_a_failure_that_is_not_listed_and_a_listed_test_that_passes_need_a_person() -> None:
    outcomes = {"a": "passed", "b": "failed", "c": "failed", "d": "passed", "e": "skipped"}
    found = compare(Run(outcomes, {}), {"c": "feature", "d": "feature", "e": "feature", "not run": "feature"})
    assert (found.unlisted, found.recovered) == (["b"], ["d"])


@pytest.mark.parametrize(
    ("lines", "said"), [("nonsense a\n", "unknown class"), ("feature a\nfile-kind a\n", "listed twice")]
)
def test_a_malformed_table_is_refused(lines: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "failures.txt").write_text(lines)
    with pytest.raises(ValueError, match=said):
        read_table(tmp_path / "failures.txt")


def test_the_page_has_the_numbers_of_the_table() -> None:
    count = Counter(read_table().values())
    assert page.classes(count) in PAGE.read_text(), (
        "run: python -m tests.hub.official --write docs/hub-suite.md"
    )
    assert set(count) <= set(CLASSES)
