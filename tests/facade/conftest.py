"""Two registries for every function: an embedded one, and one server shared by all tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import adaptry
from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

MakeLora = Callable[..., Path]

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, at_the_end: ExitStack) -> Iterator[Server]:
    settings = ServerSettings(data=tmp_path_factory.mktemp("server"))
    with running_server(settings, at_the_end.callback) as started:
        yield started


@pytest.fixture(params=["embedded", pytest.param("http", marks=pytest.mark.slow)])
def where(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A registry's location: a folder, or the server's address with its token in the environment."""
    if request.param == "embedded":
        return str(tmp_path / "registry")
    server: Server = request.getfixturevalue("server")
    monkeypatch.setenv("ADAPTRY_TOKEN", server.admin)
    return server.url


@pytest.fixture
def registry(where: str) -> Iterator[adaptry.Registry]:
    with adaptry.connect(where) as opened:
        yield opened


@pytest.fixture
def number() -> int:
    """The test's own number, which gives it its own namespace and weights on the shared server."""
    return next(_NUMBERS)


@pytest.fixture
def name(number: int) -> str:
    return f"team-{number}/tone"


@pytest.fixture
def lora(tmp_path: Path, number: int) -> MakeLora:
    """Makes folders with small LoRAs; those of different seeds differ."""

    def make(seed: int = 1, **options: object) -> Path:
        folder = tmp_path / f"lora-{seed}-{len(list(tmp_path.iterdir()))}"
        return tiny_lora(folder, seed=100 * number + seed, **options)  # type: ignore[arg-type]  # as given

    return make


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "base")
