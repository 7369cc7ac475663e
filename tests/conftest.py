"""What every test stands on: no network, no user's settings, one torch thread, a registry home of its own.

The environment is set while this file is read, before any module that looks at it is imported.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

for _name in [name for name in os.environ if name.startswith("ADAPTRY_")]:
    del os.environ[_name]  # a developer's own registry is never a test's
os.environ["OMP_NUM_THREADS"] = "1"  # spinning threads on busy cores triple the time
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["NO_PROXY"] = "127.0.0.1,localhost"
os.environ.pop("COLUMNS", None)

pytest.register_assert_rewrite(
    "adaptry.testing", "adaptry_api.testing"
)  # the contracts' asserts show their values


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands for the user's data folder in this test, and in every process it starts."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("ADAPTRY_HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    return folder
