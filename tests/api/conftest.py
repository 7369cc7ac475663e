"""A server for each test, a client for it, and a small adapter to push."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.registry.http import HttpRegistry
from adaptry.testing.samples import tiny_lora
from adaptry_api import cleanup
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server


@pytest.fixture
def start(tmp_path: Path, at_the_end: ExitStack) -> Iterator[Callable[..., Server]]:
    """Starts servers that differ from the usual one."""
    with ExitStack() as stack:

        def make(**options: Any) -> Server:
            return stack.enter_context(
                running_server(ServerSettings(data=tmp_path / "data", **options), at_the_end.callback)
            )

        yield make


@pytest.fixture(scope="module")
def confirmed_by_tests_only() -> Iterator[None]:
    """Servers started from now on do not confirm users with the identity provider every minute: a test that
    lets time pass would race with them.
    """
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(cleanup, "CONFIRM_EVERY", 86_400.0)
        yield


@pytest.fixture
def stores_downloads_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers started from now on store downloads after a moment, not after a minute."""
    monkeypatch.setattr(cleanup, "DOWNLOADS_EVERY", 0.1)


@pytest.fixture
def server(start: Callable[..., Server]) -> Server:
    return start()


@pytest.fixture
def registry(server: Server) -> HttpRegistry:
    return server.registry()


@pytest.fixture
def tone(tmp_path: Path) -> Adapter:
    return open_dir(tiny_lora(tmp_path / "tone"))
