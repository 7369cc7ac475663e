"""A registry's folder stores the location of its catalog, and no process creates a second one."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Conflict, Invalid
from adaptry.core.refs import Ref
from adaptry.core.settings import AdaptrySettings
from adaptry.operations.transfer import pull, push
from adaptry.storage.connect import connect, is_registry, open_local
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora


def test_a_registry_with_its_rows_in_postgres_is_found_by_its_folder(
    postgres: PostgresServer, folder: Path, tmp_path: Path
) -> None:
    first = open_local(folder, catalog=postgres.url(postgres.create_empty()))
    pushed = push(first, open_dir(tiny_lora(tmp_path / "lora")), "acme/tone")
    first.close()

    assert is_registry(folder)
    assert not (folder / "catalog.sqlite").exists()
    again = connect(str(folder), AdaptrySettings(), create_missing=False)
    assert again.versions.get(Ref.parse("acme/tone")).digest == pushed.version.digest
    pull(again, "acme/tone", tmp_path / "pulled")
    again.close()


def test_the_password_is_not_stored(postgres: PostgresServer, folder: Path) -> None:
    url = postgres.database().replace("postgres@", "postgres:s3cret@")
    open_local(folder, catalog=url).close()
    assert "s3cret" not in (folder / "catalog.url").read_text()
    open_local(folder, catalog=url).close()


def test_another_database_than_the_one_remembered_is_refused(postgres: PostgresServer, folder: Path) -> None:
    open_local(folder, catalog=postgres.database()).close()
    with pytest.raises(Conflict, match="has its catalog in postgresql://"):
        open_local(folder, catalog=postgres.database())


def test_a_folder_with_a_catalog_is_migrated_and_not_recreated(
    postgres: PostgresServer, folder: Path
) -> None:
    open_local(folder).close()
    with pytest.raises(Conflict, match="adaptry migrate --from sqlite:"):
        open_local(folder, catalog=postgres.database())


@pytest.mark.parametrize("url", ["mysql://host/db", "host:5432", "postgresql://host:port/db", "sqlite:///x"])
def test_a_malformed_database_address_is_refused_with_the_right_form(folder: Path, url: str) -> None:
    with pytest.raises(Invalid, match="postgresql://user@host:port/database"):
        open_local(folder, catalog=url)
    assert not is_registry(folder)
