"""Only its owner can read a registry's database, wherever it is and whichever process created it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from adaptry.core.refs import AdapterName
from adaptry.registry.records import AdapterEdit
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.connect import open_local

TONE = AdapterName.parse("acme/tone")


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """A umask of 0, as in a container in which every user may read and write files."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """The modes of all files of the database in a folder, in octal."""
    return {path.name: oct(path.stat().st_mode & 0o777) for path in folder.glob("catalog.sqlite*")}


def test_a_new_database_is_private_to_its_owner(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with closing(open_local(tmp_path)) as registry:
        registry.adapters.create(TONE, AdapterEdit())
        found = modes(tmp_path)
    assert {"catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"} <= found.keys()
    assert set(found.values()) == {"0o600"}


def test_a_database_at_any_path_is_private_to_its_owner(tmp_path: Path) -> None:
    with closing(Catalog.open(tmp_path / "catalog.sqlite-of-mine")) as catalog:
        catalog.check()
        assert set(modes(tmp_path).values()) == {"0o600"}


def test_a_database_that_others_could_read_becomes_private_when_it_is_opened(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as registry:
        registry.adapters.create(TONE, AdapterEdit())
    held = sqlite3.connect(tmp_path / "catalog.sqlite")
    held.execute("SELECT count(*) FROM adapters").fetchone()  # so that -wal and -shm exist, as after a crash
    for path in tmp_path.glob("catalog.sqlite*"):
        path.chmod(0o666)
    with closing(held), closing(open_local(tmp_path)) as registry:
        assert registry.adapters.get(TONE).name == TONE
        assert set(modes(tmp_path).values()) == {"0o600"}
