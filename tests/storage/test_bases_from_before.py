"""Bases registered before bases had visibilities stay readable with every token, and only with a token."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.identity import ANONYMOUS, Identity
from adaptry.operations.base_registry import register_base
from adaptry.registry.base_info import BaseEdit
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_base

from .downgrade import back_to_0012

STRANGER = Identity.with_role("stranger", "reader", ("elsewhere",))
OWNER = Identity.with_role("owner", "reader", ("org",))


def test_bases_of_an_older_registry_are_internal_and_new_ones_are_private(
    folder: Path, tmp_path: Path
) -> None:
    registry = open_local(folder)
    old = register_base(
        registry, open_checkpoint(tiny_base(tmp_path / "old")), ("org/tiny", "gpt2"), cache=tmp_path
    )
    registry.close()
    database = sqlite3.connect(folder / "catalog.sqlite")
    with database:
        back_to_0012(database)
    database.close()

    reopened = open_local(folder)

    assert reopened.bases.get("org/tiny").visibility == "internal"
    assert reopened.on_behalf_of(STRANGER).bases.get("gpt2").id == old.id
    assert reopened.on_behalf_of(ANONYMOUS).bases.list().items == ()
    new = register_base(
        reopened, open_checkpoint(tiny_base(tmp_path / "new", seed=3)), ("org/new",), cache=tmp_path
    )
    assert new.visibility == "private"
    assert [info.id for info in reopened.on_behalf_of(STRANGER).bases.list().items] == [old.id]
    reopened.bases.edit(old.id, BaseEdit(visibility="private"))
    assert {info.id for info in reopened.on_behalf_of(OWNER).bases.list().items} == {old.id, new.id}
    assert reopened.on_behalf_of(STRANGER).bases.list().items == ()
    reopened.close()
