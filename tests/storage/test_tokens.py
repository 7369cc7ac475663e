"""Tokens: shown once, stored as a hash, and distinguished from typing errors without the database."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adaptry.core.errors import Invalid, NotFound, Unauthenticated
from adaptry.core.refs import AdapterName
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.tokens import (
    admit_token,
    create_token,
    identify,
    list_tokens,
    revoke_own_token,
    revoke_token,
    to_hub_token,
)


@pytest.fixture
def catalog() -> Catalog:
    return Catalog("sqlite://")


def test_a_token_identifies_its_holder(catalog: Catalog) -> None:
    secret = create_token(catalog, "ci of acme", "writer", ["acme", "acme-*"], kind="ci")
    assert secret.startswith("adr_ci_")
    found = identify(catalog, secret)
    assert (found.name, found.role, found.namespaces) == ("ci of acme", "writer", ("acme", "acme-*"))
    assert found.may("push", AdapterName.parse("acme-two/tone"))
    assert not found.may("push", AdapterName.parse("other/tone"))


def test_the_secret_is_stored_nowhere(tmp_path: Path) -> None:
    catalog = Catalog.open(tmp_path / "catalog.sqlite")
    secret = create_token(catalog, "ada", "writer", ["acme"])
    catalog.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"ada" in stored
    assert secret.encode() not in stored
    assert secret[8:40].encode() not in stored


def test_a_mistyped_token_and_an_unknown_one_get_different_errors(catalog: Catalog) -> None:
    secret = create_token(catalog, "ada", "writer", ["acme"])
    for broken in (
        secret[:-1],
        secret[:-1] + ("a" if secret[-1] != "a" else "b"),
        "",
        "hunter2",
        "adr_pat_é" + "x" * 37,
    ):
        with pytest.raises(Unauthenticated, match="not a complete adaptry token"):
            identify(catalog, broken)
    with pytest.raises(Unauthenticated, match="unknown or revoked"):
        identify(Catalog("sqlite://"), secret)


def test_a_revoked_token_is_refused(catalog: Catalog) -> None:
    secret = create_token(catalog, "ada", "writer", ["acme"])
    (info,) = list_tokens(catalog)
    assert secret.endswith(info.last_four)
    revoke_token(catalog, info.id)
    with pytest.raises(Unauthenticated):
        identify(catalog, secret)
    with pytest.raises(NotFound):
        revoke_token(catalog, info.id)
    assert list_tokens(catalog)[0].revoked_at is not None


def test_an_expired_token_is_refused(catalog: Catalog) -> None:
    secret = create_token(catalog, "ada", "writer", ["acme"], datetime.now(UTC) + timedelta(days=1))
    assert identify(catalog, secret).name == "ada"
    with catalog.write() as tx:  # a day passes
        tx.connection().exec_driver_sql("UPDATE tokens SET expires_at = created_at")
    with pytest.raises(Unauthenticated, match="expired"):
        identify(catalog, secret)


@pytest.mark.parametrize(
    ("name", "namespaces", "kind"),
    [("", ["a"], "pat"), ("a", [], "pat"), ("a", ["a b"], "pat"), ("a", ["a"], "P")],
)
def test_a_token_without_rights_is_not_created(
    catalog: Catalog, name: str, namespaces: list[str], kind: str
) -> None:
    with pytest.raises(Invalid):
        create_token(catalog, name, "reader", namespaces, kind=kind)
    with pytest.raises(Invalid, match="is in the past"):
        create_token(catalog, "ada", "reader", ["acme"], datetime(2020, 1, 1, tzinfo=UTC))


def test_a_token_with_the_prefix_hf_is_the_same_token(catalog: Catalog) -> None:
    secret = create_token(catalog, "ada", "writer", ["acme"])
    other = to_hub_token(secret)
    assert other == f"hf_{secret}" == to_hub_token(other)
    assert identify(catalog, other) == identify(catalog, secret)
    revoke_own_token(catalog, other)
    for spelling in (secret, other):
        with pytest.raises(Unauthenticated, match="unknown or revoked"):
            identify(catalog, spelling)
    with pytest.raises(Unauthenticated, match="not a complete adaptry token"):
        identify(catalog, f"hf_{other}")


def test_no_scanner_mistakes_the_second_spelling_for_a_huggingface_token(catalog: Catalog) -> None:
    other = to_hub_token(create_token(catalog, "ada", "writer", ["acme"]))
    assert not re.search(r"hf_[A-Za-z0-9]{34}", other)
    assert re.search(r"adr_[a-z]{2,8}_[0-9A-Za-z]{38}", other)


def test_an_administrators_token_may_be_given_in_either_spelling(catalog: Catalog) -> None:
    secret = create_token(Catalog("sqlite://"), "root", "admin", ["*"])
    for spelling in (secret, to_hub_token(secret)):
        admit_token(catalog, spelling, "root", "admin", ["*"])
    assert len(list_tokens(catalog)) == 1
    assert identify(catalog, secret).role == "admin"
