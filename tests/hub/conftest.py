"""One server for each test worker: every flow uses its own names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .checklist_server import Site, serving


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp("hub")) as running:
        yield running
