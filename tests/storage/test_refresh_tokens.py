"""Refresh tokens of approved programs: each is exchanged once, and a copied one ends the sign-in."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from adaptry.core.errors import Busy, Unauthenticated, Unavailable
from adaptry.storage import device_sign_ins, sign_ins, tokens
from adaptry.storage.catalog import epochs, principals
from adaptry.storage.catalog import tokens as kept
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.refresh_tokens import (
    ACCESS_LIFETIME,
    LIFETIME,
    OVERLAP,
    RETRY,
    ProgramTokens,
    RefreshTokenReused,
    refresh,
)
from adaptry.storage.sign_ins import ConfirmedUser

CLIENT = "hf"
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def present(monkeypatch: pytest.MonkeyPatch) -> None:
    """The present time of each test: tokens are checked at the real time, and the test run may have begun an
    hour ago.
    """
    monkeypatch.setitem(globals(), "NOW", datetime.now(UTC))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def catalog(request: pytest.FixtureRequest) -> Iterator[Catalog]:
    is_postgres = request.param == "postgres"
    opened = Catalog(request.getfixturevalue("postgres").database() if is_postgres else "sqlite://")
    yield opened
    opened.close()


def approved(
    catalog: Catalog, until: datetime | None = None, external: int | None = None, user: str = "ann"
) -> ProgramTokens:
    """The tokens of a program that `user` approved with a token that is valid until then."""
    found = device_sign_ins.poll(catalog, approved_and_waiting(catalog, until, external, user), NOW)
    assert isinstance(found, ProgramTokens)
    return found


def approved_and_waiting(
    catalog: Catalog, until: datetime | None = None, external: int | None = None, user: str = "ann"
) -> str:
    """The device code of such a program, which has not fetched its tokens yet."""
    with catalog.write() as tx:
        ann = principals.find(tx, user) or principals.insert(tx, "user", user, None, NOW, "root")
        name = secrets.token_hex(4)
        web = tokens.issue(tx, ann, name, None, until, "root", external=external).secret
    codes = device_sign_ins.begin(catalog, CLIENT, NOW)
    device_sign_ins.decide(catalog, tokens.identify(catalog, web), codes.user_code, True, NOW)
    return codes.device_code


def works(catalog: Catalog, secret: str) -> bool:
    try:
        return tokens.identify(catalog, secret).name == "ann"
    except Unauthenticated:
        return False


def test_each_refresh_token_is_exchanged_for_an_access_token_and_the_next(catalog: Catalog) -> None:
    last, now = approved(catalog), NOW
    for _ in range(3):
        now += 29 * DAY
        following = refresh(catalog, last.refresh_token, CLIENT, now)
        assert following.access.expires_at == now + ACCESS_LIFETIME
        assert following.refresh_token != last.refresh_token
        assert works(catalog, following.access.secret)
        last = following


def test_the_replaced_access_token_works_for_another_hour(catalog: Catalog) -> None:
    first = approved(catalog)
    refresh(catalog, first.refresh_token, CLIENT, NOW)
    with catalog.read() as tx:
        record = kept.by_id(tx, first.access.id)
    assert record is not None and record.info.revoked_at is None
    assert record.info.expires_at == NOW + OVERLAP


def test_a_refresh_token_that_is_used_again_ends_the_sign_in_for_both(catalog: Catalog) -> None:
    first = approved(catalog)
    second = refresh(catalog, first.refresh_token, CLIENT, NOW)
    third = refresh(catalog, second.refresh_token, CLIENT, NOW)
    with pytest.raises(RefreshTokenReused, match="used before"):
        refresh(catalog, first.refresh_token, CLIENT, NOW)
    for one in (first, second, third):
        assert not works(catalog, one.access.secret)
        with pytest.raises(Unauthenticated, match="unknown, expired or revoked"):
            refresh(catalog, one.refresh_token, CLIENT, NOW)


def test_an_exchange_may_be_repeated_after_a_lost_answer_for_a_few_minutes(catalog: Catalog) -> None:
    first = approved(catalog)
    lost = refresh(catalog, first.refresh_token, CLIENT, NOW)
    again = refresh(catalog, first.refresh_token, CLIENT, NOW + RETRY / 2)
    assert works(catalog, again.access.secret) and not works(catalog, lost.access.secret)
    with pytest.raises(RefreshTokenReused):
        refresh(catalog, first.refresh_token, CLIENT, NOW + RETRY)
    assert not works(catalog, again.access.secret)


def test_a_stolen_refresh_token_is_detected_at_the_next_refresh(catalog: Catalog) -> None:
    first = approved(catalog)
    program = refresh(catalog, first.refresh_token, CLIENT, NOW)
    thief = refresh(catalog, first.refresh_token, CLIENT, NOW)
    with pytest.raises(RefreshTokenReused):
        refresh(catalog, program.refresh_token, CLIENT, NOW)
    assert not works(catalog, thief.access.secret)
    with pytest.raises(Unauthenticated):
        refresh(catalog, thief.refresh_token, CLIENT, NOW)


def test_only_one_programs_tokens_remain_after_many_exchanges_at_once(catalog: Catalog) -> None:
    first = approved(catalog)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: refresh(catalog, first.refresh_token, CLIENT, NOW), range(4)))
    assert sum(works(catalog, one.access.secret) for one in found) == 1


@pytest.mark.parametrize("which", [0, 1], ids=["the replaced one", "the newest one"])
def test_revoking_an_access_token_ends_the_whole_sign_in(catalog: Catalog, which: int) -> None:
    first = approved(catalog)
    both = [first, refresh(catalog, first.refresh_token, CLIENT, NOW)]
    tokens.revoke_token(catalog, both[which].access.id)
    assert not any(works(catalog, one.access.secret) for one in both)
    with pytest.raises(Unauthenticated):
        refresh(catalog, both[1].refresh_token, CLIENT, NOW)


def test_revoking_one_program_leaves_the_others(catalog: Catalog) -> None:
    laptop, desktop = approved(catalog), approved(catalog)
    tokens.revoke_token(catalog, laptop.access.id)
    assert works(catalog, refresh(catalog, desktop.refresh_token, CLIENT, NOW).access.secret)


def test_a_reported_refresh_token_ends_its_sign_in_and_no_other(catalog: Catalog) -> None:
    leaked, other = approved(catalog), approved(catalog)
    following = refresh(catalog, leaked.refresh_token, CLIENT, NOW)
    tokens.revoke_own_token(catalog, leaked.refresh_token)
    for one in (leaked, following):
        assert not works(catalog, one.access.secret)
        with pytest.raises(Unauthenticated, match="unknown, expired or revoked"):
            refresh(catalog, one.refresh_token, CLIENT, NOW)
    assert works(catalog, refresh(catalog, other.refresh_token, CLIENT, NOW).access.secret)


def test_a_restore_that_revokes_tokens_signs_programs_out(catalog: Catalog) -> None:
    signed_in, waiting = approved(catalog), approved_and_waiting(catalog)
    with catalog.write() as tx:
        epochs.begin(tx, NOW, keep_tokens=False)
    assert not works(catalog, signed_in.access.secret)
    with pytest.raises(Unauthenticated, match="unknown, expired or revoked"):
        refresh(catalog, signed_in.refresh_token, CLIENT, NOW)
    assert device_sign_ins.poll(catalog, waiting, NOW) == "expired_token"


def test_a_restore_that_keeps_tokens_leaves_programs_signed_in(catalog: Catalog) -> None:
    signed_in, waiting = approved(catalog), approved_and_waiting(catalog)
    with catalog.write() as tx:
        epochs.begin(tx, NOW, keep_tokens=True)
    assert works(catalog, refresh(catalog, signed_in.refresh_token, CLIENT, NOW).access.secret)
    assert isinstance(device_sign_ins.poll(catalog, waiting, NOW), ProgramTokens)


def test_a_revoked_access_token_is_not_refreshed(catalog: Catalog) -> None:
    first = approved(catalog)
    with catalog.write() as tx:
        kept.revoke_alone(tx, first.access.id, NOW)
    with pytest.raises(Unauthenticated, match="unknown, expired or revoked"):
        refresh(catalog, first.refresh_token, CLIENT, NOW)


def test_a_repeated_exchange_leaves_the_users_other_programs_waiting(catalog: Catalog) -> None:
    first, waiting = approved(catalog), approved_and_waiting(catalog)
    for _ in range(2):
        refresh(catalog, first.refresh_token, CLIENT, NOW)
    assert isinstance(device_sign_ins.poll(catalog, waiting, NOW), ProgramTokens)


def test_a_disabled_user_gets_no_token_and_the_old_one_is_not_used_up(catalog: Catalog) -> None:
    first = approved(catalog)
    set_disabled(catalog, NOW)
    with pytest.raises(Unauthenticated, match="disabled"):
        refresh(catalog, first.refresh_token, CLIENT, NOW)
    set_disabled(catalog, None)
    assert works(catalog, refresh(catalog, first.refresh_token, CLIENT, NOW).access.secret)


def test_a_refresh_token_belongs_to_the_program_that_began(catalog: Catalog) -> None:
    first = approved(catalog)
    with pytest.raises(Unauthenticated):
        refresh(catalog, first.refresh_token, "another", NOW)
    assert works(catalog, refresh(catalog, first.refresh_token, CLIENT, NOW).access.secret)


def test_a_refresh_token_is_not_an_access_token_and_an_access_token_refreshes_nothing(
    catalog: Catalog,
) -> None:
    first = approved(catalog)
    assert not works(catalog, first.refresh_token)
    with pytest.raises(Unauthenticated):
        refresh(catalog, first.access.secret, CLIENT, NOW)


def test_an_unused_sign_in_ends_after_ninety_days(catalog: Catalog) -> None:
    first = approved(catalog)
    with pytest.raises(Unauthenticated):
        refresh(catalog, first.refresh_token, CLIENT, NOW + LIFETIME)


def test_tokens_end_with_the_token_that_approved_the_program(catalog: Catalog) -> None:
    until = NOW + 40 * DAY
    first = approved(catalog, until)
    second = refresh(catalog, first.refresh_token, CLIENT, NOW + 29 * DAY)
    assert second.access.expires_at == until
    with pytest.raises(Unauthenticated):
        refresh(catalog, second.refresh_token, CLIENT, until)


def test_a_program_that_refreshes_all_the_time_has_to_wait(catalog: Catalog) -> None:
    last = approved(catalog)
    with pytest.raises(Busy, match="too often"):
        for _ in range(100):
            last = refresh(catalog, last.refresh_token, CLIENT, NOW)
    later = NOW + timedelta(hours=2)
    assert works(catalog, refresh(catalog, last.refresh_token, CLIENT, later).access.secret)


def test_the_provider_decides_about_refresh_tokens_as_about_access_tokens(catalog: Catalog) -> None:
    known = ConfirmedUser("https://login.example", "00u1", ("ann",), frozenset({"staff"}), "sealed")
    with catalog.write() as tx:
        group = principals.insert_group(tx, "staff", NOW, "root")
        sign_ins.sign_ins.map_group(tx, "staff", group, NOW, "root")
    sign_ins.sign_in(catalog, known, NOW)
    with catalog.read() as tx:
        external = sign_ins.sign_ins.find_external(tx, known.issuer, known.subject)
    assert external is not None
    first = approved(catalog, external=external.key)
    second = refresh(catalog, first.refresh_token, CLIENT, NOW + timedelta(minutes=59))
    with pytest.raises(Unavailable, match="not confirmed"):
        refresh(catalog, second.refresh_token, CLIENT, NOW + timedelta(minutes=60))
    sign_ins.confirm(catalog, external, known)
    third = refresh(catalog, second.refresh_token, CLIENT, datetime.now(UTC))
    sign_ins.end(catalog, external)
    assert not works(catalog, third.access.secret)
    with pytest.raises(Unauthenticated):
        refresh(catalog, third.refresh_token, CLIENT, datetime.now(UTC))


def set_disabled(catalog: Catalog, at: datetime | None) -> None:
    with catalog.write() as tx:
        ann = principals.find(tx, "ann")
        assert ann is not None
        principals.set_disabled(tx, ann, at)
