"""A server with the sample registry, shared by the tests that only look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.pages.sample_registry import fill

from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("team")
    with (
        ExitStack() as at_the_end,
        running_server(ServerSettings(data=folder / "data"), at_the_end.callback) as server,
    ):
        fill(server.registry(), folder)
        yield server


@pytest.fixture
def start(tmp_path: Path, at_the_end: ExitStack) -> Iterator[Callable[..., Server]]:
    """Starts servers of their own, which are empty."""
    with ExitStack() as stack:

        def make(**options: Any) -> Server:
            return stack.enter_context(
                running_server(ServerSettings(data=tmp_path / "data", **options), at_the_end.callback)
            )

        yield make
