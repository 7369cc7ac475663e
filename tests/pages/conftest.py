"""Servers with the sample registry, shared by the tests that only read it: embedded and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.pages.sample_registry import fill, fill_settings

from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

if TYPE_CHECKING:
    from adaptry.testing.postgres import PostgresServer


@pytest.fixture(scope="session")
def embedded_team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with _filled(tmp_path_factory.mktemp("team")) as server:
        yield server


@pytest.fixture(scope="session")
def team(embedded_team: Server) -> Server:
    return embedded_team


@pytest.fixture(scope="session")
def team_on_postgres(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Server]:
    with _filled(tmp_path_factory.mktemp("team"), postgres.database()) as server:
        yield server


@contextmanager
def _filled(folder: Path, catalog: str | None = None) -> Iterator[Server]:
    settings = ServerSettings(data=folder / "data", catalog=catalog)
    with ExitStack() as at_the_end, running_server(settings, at_the_end.callback) as server:
        fill(server.registry(), folder)
        fill_settings(server.registry())
        yield server


@pytest.fixture
def start(tmp_path: Path, at_the_end: ExitStack) -> Iterator[Callable[..., Server]]:
    """Starts separate, empty servers."""
    with ExitStack() as stack:

        def make(**options: Any) -> Server:
            return stack.enter_context(
                running_server(ServerSettings(data=tmp_path / "data", **options), at_the_end.callback)
            )

        yield make
