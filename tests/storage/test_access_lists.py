"""Lists of tokens, principals, groups and grants: a page reads as many rows in a large registry as in a small
one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Pool, event

from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.errors import Invalid, NotFound
from adaptry.core.identity import LOCAL, Identity
from adaptry.registry.access import GrantInfo
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import Page
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog import cursors
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext

SIZES = (1_000, 20_000)
OWNER = Identity("olga", (Grant("owner", Resource("team-7")),))
OF_MANY = Identity("pat", (Grant("owner", Resource("team-1*")),))
_AT = "'2026-01-01 00:00:00.000000'"
Read = Callable[[LocalRegistry, str | None], Page[object]]
LISTS: dict[str, Read] = {
    "tokens": lambda registry, cursor: registry.tokens.list(cursor, 20),
    "newest tokens": lambda registry, cursor: registry.tokens.list(cursor, 20, reverse=True),
    "tokens of one": lambda registry, cursor: registry.tokens.list(cursor, 20, principal="team-7/bot-7"),
    "tokens of a namespace": lambda registry, cursor: registry.tokens.list(
        cursor, 3, namespace="team-7", with_revoked=False, reverse=True
    ),
    "principals": lambda registry, cursor: registry.principals.list(cursor, 20),
    "users": lambda registry, cursor: registry.principals.list(cursor, 20, kinds=("user", "worker")),
    "accounts": lambda registry, cursor: registry.principals.list(cursor, 3, namespace="team-7"),
    "names": lambda registry, cursor: registry.principals.list(cursor, 3, prefix="user-9"),
    "grants of a namespace": lambda registry, cursor: registry.grants.list("team-7", None, cursor, 3),
    "other grants": lambda registry, cursor: registry.grants.list(
        "team-7", None, cursor, 3, with_members=False
    ),
    "members": lambda registry, cursor: _members(registry, cursor, 3),
    "groups": lambda registry, cursor: registry.principals.groups(cursor, 3),
}
FOR_ADMINISTRATORS: dict[str, Read] = {
    "grants": lambda registry, cursor: registry.grants.list(cursor=cursor),
    "those in a group": lambda registry, cursor: registry.principals.list(cursor, 3, group="group-7"),
}


def fill(catalog: Catalog, size: int) -> None:
    """Adds principals, half of them users and half service accounts, ten for each namespace. Each has a token
    and two grants, and is in one of the groups of twenty.
    """
    count, groups = (
        f"WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {most})"
        for most in (size, size // 20)
    )
    team = f"'team-' || (id % {size // 20})"
    columns = "principal_id, namespace, names, permission, conditions, created_at, created_by"
    grants = f"INSERT INTO grants ({columns})"
    with catalog.write() as tx:
        for statement in (
            f"INSERT INTO principals (id, kind, name, namespace, created_at, created_by) {count}"
            f" SELECT id, CASE WHEN id % 2 THEN 'service-account' ELSE 'user' END,"
            f" CASE WHEN id % 2 THEN {team} || '/bot-' || id ELSE 'user-' || id END,"
            f" CASE WHEN id % 2 THEN {team} END, {_AT}, 'root' FROM ids",
            "INSERT INTO tokens"
            " (id, secret_sha256, last_four, kind, principal_id, name, created_at, created_by)"
            f" {count} SELECT id, printf('%064x', id), 'abcd', 'pat', id, 'first', {_AT}, 'root' FROM ids",
            f"{grants} {count} SELECT id, {team}, '*', 'viewer', '[]', {_AT}, 'root' FROM ids",
            f"{grants} {count} SELECT id, {team}, 'tone', 'push', '[]', {_AT}, 'root' FROM ids",
            f"INSERT INTO principal_groups (id, name, created_at, created_by) {groups}"
            f" SELECT id, 'group-' || id, {_AT}, 'root' FROM ids",
            f"INSERT INTO group_members (group_id, principal_id) {count}"
            f" SELECT 1 + id % {size // 20}, id FROM ids",
        ):
            tx.connection().exec_driver_sql(statement)


@pytest.fixture(scope="module")
def catalogs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Catalog]]:
    folder = tmp_path_factory.mktemp("catalogs")
    opened = [Catalog(f"sqlite:///{folder}/{size}.sqlite") for size in SIZES]
    for catalog, size in zip(opened, SIZES, strict=True):
        fill(catalog, size)
    yield opened
    for catalog in opened:
        catalog.close()


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("identity", [LOCAL, OWNER], ids=["administrator", "owner"])
def test_a_page_reads_no_more_rows_in_a_large_registry(
    catalogs: list[Catalog], identity: Identity, name: str
) -> None:
    small, large = (_cost(catalog, identity, LISTS[name]) for catalog in catalogs)
    assert large <= 2 * small + 300, (small, large)


@pytest.mark.parametrize("name", FOR_ADMINISTRATORS)
def test_lists_for_administrators_read_no_more_rows_in_a_large_registry(
    catalogs: list[Catalog], name: str
) -> None:
    small, large = (_cost(catalog, LOCAL, FOR_ADMINISTRATORS[name]) for catalog in catalogs)
    assert large <= 2 * small + 300


@pytest.mark.parametrize("identity", [LOCAL, OWNER, OF_MANY], ids=["administrator", "owner", "pattern"])
def test_pages_have_each_entry_that_the_caller_manages_once_and_in_order(
    catalogs: list[Catalog], identity: Identity
) -> None:
    registry = _registry(catalogs[0], identity)
    tokens = list(iter_items(lambda cursor: registry.tokens.list(cursor, 7)))
    principals = list(iter_items(lambda cursor: registry.principals.list(cursor, 7)))
    all_principals = list(
        iter_items(lambda cursor: _registry(catalogs[0], LOCAL).principals.list(cursor, 200))
    )
    expected = [
        one
        for one in all_principals
        if identity.may_administer or (one.namespace and identity.may_in("token.manage", one.namespace))
    ]
    assert principals == expected == sorted(expected, key=lambda one: one.name)
    assert {one.principal for one in tokens} == {one.name for one in expected}
    assert [one.id for one in tokens] == sorted({one.id for one in tokens})
    newest = list(iter_items(lambda cursor: registry.tokens.list(cursor, 9, reverse=True)))
    assert newest == tokens[::-1]
    if identity is LOCAL:
        assert len(tokens) == SIZES[0]


def test_groups_and_their_members_are_listed_in_pages_by_name(catalogs: list[Catalog]) -> None:
    registry = _registry(catalogs[0], LOCAL)
    groups = list(iter_items(lambda cursor: registry.principals.groups(cursor, 7)))
    names = [one.name for one in groups]
    assert (len(names), names) == (SIZES[0] // 20, sorted(names))
    (seventh,) = (one for one in groups if one.name == "group-7")
    inside = list(iter_items(lambda cursor: registry.principals.list(cursor, 3, group="group-7")))
    assert (seventh.size, seventh.members) == (20, tuple(one.name for one in inside))
    assert seventh.members == tuple(sorted(seventh.members))
    users = registry.principals.list(group="group-7", kinds=("user",)).items
    assert {one.kind for one in users} <= {"user"}


def test_a_large_group_shows_its_first_members_and_its_size(catalogs: list[Catalog]) -> None:
    registry = _registry(catalogs[0], LOCAL)
    registry.principals.create_group("large")
    all_principals = list(iter_items(lambda cursor: registry.principals.list(cursor, 200)))[:60]
    for one in all_principals:
        found = registry.principals.set_membership("large", one.name, True)
    assert (found.size, len(found.members)) == (60, 50)
    assert found.members == tuple(one.name for one in all_principals[:50])
    inside = list(iter_items(lambda cursor: registry.principals.list(cursor, 25, group="large")))
    assert inside == all_principals
    registry.principals.delete_group("large")


def test_a_group_is_listed_for_its_members_and_administrators_only(catalogs: list[Catalog]) -> None:
    registry = _registry(catalogs[0], LOCAL)
    inside = registry.principals.list(group="group-7").items
    member, other = inside[0].name, "user-10"
    assert other not in {one.name for one in inside}
    theirs = _registry(catalogs[0], Identity(member))
    assert [one.name for one in theirs.principals.groups().items] == ["group-7"]
    assert theirs.principals.list(group="group-7").items == inside
    for identity in (Identity(other), Identity("nobody"), OWNER):
        stranger = _registry(catalogs[0], identity)
        with pytest.raises(NotFound) as hidden:
            stranger.principals.list(group="group-7")
        with pytest.raises(NotFound) as absent:
            stranger.principals.list(group="group-0")
        assert hidden.value.message == absent.value.message.replace("group-0", "group-7")
    assert _registry(catalogs[0], Identity("nobody")).principals.groups().items == ()


def test_members_of_a_namespace_are_listed_in_pages_without_repetition(catalogs: list[Catalog]) -> None:
    registry = _registry(catalogs[0], LOCAL)
    found = list(iter_items(lambda cursor: _members(registry, cursor, 7)))
    assert len(found) == 20
    assert [one.id for one in found] == sorted({one.id for one in found})
    assert {one.permission for one in found} == {"viewer"}


def test_filters_select_the_matching_entries(catalogs: list[Catalog]) -> None:
    registry = _registry(catalogs[0], LOCAL)
    (token,) = registry.tokens.list(principal="user-10").items
    assert token.principal == "user-10"
    assert {one.namespace for one in registry.principals.list(namespace="team-7").items} == {"team-7"}
    assert {one.kind for one in registry.principals.list(kinds=("user",)).items} == {"user"}
    assert all(one.name.startswith("user-10") for one in registry.principals.list(prefix="user-10").items)
    assert len(registry.principals.list(prefix="user-10").items) == 7, "10, 100, 102, …, 108 and 1000"
    both = registry.grants.list("team-7", limit=200).items
    others = registry.grants.list("team-7", limit=200, with_members=False).items
    assert {one.permission for one in others} == {"push"}
    assert [one for one in both if one.permission == "push"] == list(others)
    assert len(both) == 2 * len(others)


def test_a_cursor_of_another_list_is_refused(catalogs: list[Catalog]) -> None:
    registry = _registry(catalogs[0], LOCAL)
    cursor = registry.tokens.list(limit=2).next
    for ask in (
        lambda: registry.tokens.list(cursor, reverse=True),
        lambda: registry.tokens.list(cursor, principal="user-10"),
        lambda: registry.grants.list(cursor=cursor),
        lambda: registry.principals.list(cursors.encode("x", "principals ['user'] None  None")),
        lambda: registry.tokens.list(limit=0),
        lambda: registry.grants.list(limit=201),
        lambda: registry.principals.list(limit=0),
        lambda: registry.principals.groups(cursor),
        lambda: registry.principals.groups(limit=0),
        lambda: registry.grants.members("team-7", cursor),
        lambda: registry.grants.members("team-7", limit=201),
    ):
        with pytest.raises(Invalid):
            ask()


def _members(registry: LocalRegistry, cursor: str | None, limit: int) -> Page[GrantInfo]:
    found = registry.grants.members("team-7", cursor, limit)
    return Page[GrantInfo](items=found.members, next=found.next)


def _registry(catalog: Catalog, identity: Identity) -> LocalRegistry:
    return LocalRegistry(RegistryContext(catalog, MemoryBlobs())).on_behalf_of(identity)


def _cost(catalog: Catalog, identity: Identity, read: Read) -> int:
    """The steps of SQLite's machine for two pages, in tens."""
    registry, count = _registry(catalog, identity), 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    def watch(connection: sqlite3.Connection, *rest: object) -> None:
        connection.set_progress_handler(step, 10)

    def leave(connection: sqlite3.Connection, *rest: object) -> None:
        connection.set_progress_handler(None, 0)

    event.listen(Pool, "checkout", watch)
    event.listen(Pool, "checkin", leave)
    try:
        first = read(registry, None)
        if first.next:
            read(registry, first.next)
    finally:
        event.remove(Pool, "checkout", watch)
        event.remove(Pool, "checkin", leave)
    assert count > 0
    return count
