"""Signed grants: accepted only if this server signed them, for the requested kind, unaltered and in time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptry.core.errors import Unauthenticated, Unavailable
from adaptry.core.refs import AdapterName
from adaptry_api.signed_grants import GrantSigner, SignedGrant


class Reading(SignedGrant):
    """A kind of grant."""

    path: str = "x"


class Writing(SignedGrant):
    """Another kind, of the same form."""

    path: str = "x"


def grant(until: int = 100) -> Reading:
    return Reading(name=AdapterName.parse("acme/tone"), by="0" * 64, until=until)


def test_a_signed_grant_is_read_back_unchanged(tmp_path: Path) -> None:
    signer = GrantSigner(tmp_path / "secret")
    assert signer.verify(Reading, signer.sign(grant()), now=99) == grant()


def test_every_process_of_a_server_knows_the_others_grants(tmp_path: Path) -> None:
    text = GrantSigner(tmp_path / "secret").sign(grant())
    assert GrantSigner(tmp_path / "secret").verify(Reading, text, now=0) == grant()
    with pytest.raises(Unauthenticated):
        GrantSigner(tmp_path / "another").verify(Reading, text, now=0)


def test_a_grant_expires(tmp_path: Path) -> None:
    signer = GrantSigner(tmp_path / "secret")
    with pytest.raises(Unauthenticated, match="this upload's grant has expired"):
        signer.verify(Reading, signer.sign(grant(until=100)), now=100)


def test_a_grant_of_one_kind_is_refused_as_another(tmp_path: Path) -> None:
    signer = GrantSigner(tmp_path / "secret")
    with pytest.raises(Unauthenticated, match="start the upload again"):
        signer.verify(Writing, signer.sign(grant()), now=0)


def test_no_other_text_is_a_grant(tmp_path_factory: pytest.TempPathFactory) -> None:
    signer = GrantSigner(tmp_path_factory.mktemp("signed") / "secret")
    real = signer.sign(grant())

    @given(
        st.one_of(
            st.text(max_size=200),
            st.builds(
                lambda at, char: real[:at] + char + real[at + 1 :],
                st.integers(0, len(real) - 1),
                st.characters(),
            ),
        )
    )
    def refuse(text: str) -> None:
        if text != real:
            with pytest.raises(Unauthenticated):
                signer.verify(Reading, text, now=0)

    refuse()
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for digit in digits.replace(real[-1], ""):
        with pytest.raises(Unauthenticated):
            signer.verify(Reading, real[:-1] + digit, now=0)


def test_the_secret_is_readable_only_by_its_owner_and_created_once(tmp_path: Path) -> None:
    signers = [GrantSigner(tmp_path / "secret") for _ in range(8)]
    threads = [threading.Thread(target=signer.sign, args=(grant(),)) for signer in signers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({signer.sign(grant()) for signer in signers}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_damaged_secret_signs_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(Unavailable, match="remove it"):
        GrantSigner(tmp_path / "secret").sign(grant())
    with pytest.raises(Unavailable, match="cannot store a secret"):
        GrantSigner(tmp_path / "nowhere" / "secret").sign(grant())
