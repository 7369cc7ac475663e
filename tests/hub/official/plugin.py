"""A pytest plugin that points Hugging Face's own tests at our server; it runs in their environment, not in
ours.

It sets their constants before their modules are imported, so their files stay unmodified, and writes the
result of each test to a file, one JSON object per line. The environment variable `ADAPTRY_OFFICIAL` has its
settings as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

SETTINGS = json.loads(os.environ["ADAPTRY_OFFICIAL"])
RESULTS = Path(SETTINGS["results"])


def point_at(endpoint: str, constants: dict[str, str]) -> None:
    """Sets the constants before pytest imports their conftest.py, which copies them: so this runs when this
    module is imported, not in a hook.
    """
    theirs = importlib.import_module("huggingface_hub")
    assert theirs.__version__ == SETTINGS["version"], f"huggingface_hub is {theirs.__version__} here"
    library = importlib.import_module("huggingface_hub.constants")
    library.ENDPOINT = endpoint
    library.HUGGINGFACE_CO_URL_TEMPLATE = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    suite = importlib.import_module("tests.testing_constants")
    for name, value in constants.items():
        assert hasattr(suite, name), f"the suite has no constant {name}"
        setattr(suite, name, value)


point_at(SETTINGS["constants"]["ENDPOINT_STAGING"], SETTINGS["constants"])


def pytest_deselected(items: list[Any]) -> None:
    """(`Any` here and below: it is their pytest, of any version.)"""
    for item in items:
        _write(item.nodeid, "deselected")


def pytest_runtest_logreport(report: Any) -> None:
    """Each test has three reports. It passed if its call did and no other failed."""
    if report.failed:
        _write(report.nodeid, "failed", report.longreprtext)
    elif report.skipped:
        _write(report.nodeid, "skipped")
    elif report.when == "call":
        _write(report.nodeid, "passed")


def _write(test: str, outcome: str, text: str = "") -> None:
    with RESULTS.open("a") as file:
        file.write(json.dumps({"test": test, "outcome": outcome, "text": text[-4000:]}) + "\n")
