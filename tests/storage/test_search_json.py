"""The cached JSON of a search equals that of its page, whatever any process has changed since."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.identity import ANONYMOUS, LOCAL, Identity
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.registry.base_info import BaseEdit
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange
from adaptry.storage.catalog import damage
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.samples import tiny_base, tiny_lora

TONE, VOICE = AdapterName.parse("acme/tone"), AdapterName.parse("acme/voice")
ADA = Identity.with_role("ada", "reader", ("acme",))
MEMBER = Identity.with_role("eve", "reader", ("evil",))
READERS = (LOCAL, ADA, MEMBER, ANONYMOUS)
QUERIES = ("", "alias:prod", "metric.accuracy>=0.5", "state:* -tag:draft", "base:org/tiny", "findings>0")


@pytest.fixture
def registries(tmp_path: Path) -> Iterator[tuple[LocalRegistry, LocalRegistry]]:
    """Two registries that share a folder, like two server processes, with a base that only `org` may see."""
    ours, other = (open_local(tmp_path / "data") for _ in range(2))
    register_base(ours, open_checkpoint(tiny_base(tmp_path / "base")), ("org/tiny",))
    options = PushOptions(alias="prod", metrics={"accuracy": 0.5})
    push(ours, open_dir(tiny_lora(tmp_path / "one")), TONE, options=options)
    push(ours, open_dir(tiny_lora(tmp_path / "two", seed=2)), TONE)
    push(ours, open_dir(tiny_lora(tmp_path / "three", seed=3)), VOICE)
    yield ours, other
    ours.close()
    other.close()


def searched(registry: LocalRegistry, who: Identity) -> list[bytes]:
    """The JSON of every page of every query, compared with the page of records."""
    versions, found = registry.on_behalf_of(who).versions, []
    for query in QUERIES:
        for sort in ("newest", "name", "metric.accuracy"):
            cursor: str | None = None
            while True:
                page = versions.search(query, cursor, 2, sort=sort)
                found.append(versions.search_json(query, cursor, 2, sort=sort))
                assert found[-1] == page.model_dump_json(by_alias=True).encode()
                cursor = page.next
                if cursor is None:
                    break
    return found


def mark_damaged(registry: LocalRegistry) -> None:
    detail = registry.versions.detail(Ref.parse("acme/tone@2"))
    file = detail.manifest.files[0].sha256
    with registry.catalog.write() as tx:
        damage.mark_damaged(tx, file, "a test", [detail.version.digest], detail.version.created_at)


def move_alias(registry: Registry) -> None:
    second = registry.versions.get(Ref.parse("acme/tone@2")).digest
    registry.aliases.move(TONE, "prod", second, 1)


def withdraw(registry: Registry) -> None:
    digest = registry.versions.get(Ref(VOICE)).digest
    registry.versions.set_state(VOICE, digest, StateChange(state="deprecated", reason="old"), 0)


def publish(registry: Registry) -> None:
    registry.adapters.edit(TONE, AdapterEdit(visibility="public"))


def open_base(registry: Registry) -> None:
    registry.bases.edit(registry.bases.get("org/tiny").id, BaseEdit(visibility="public"))


CHANGES: dict[str, tuple[Callable[[LocalRegistry], object], tuple[Identity, ...]]] = {
    "a state": (withdraw, (LOCAL, ADA)),
    "a metric": (lambda it: it.metrics.log(Ref.parse("acme/tone@1"), {"accuracy": 0.25}), (LOCAL, ADA)),
    "an alias": (move_alias, (LOCAL, ADA)),
    "a download": (lambda it: it.versions.count_download(Ref(TONE)), (LOCAL, ADA)),
    "a tag": (lambda it: it.adapters.edit(TONE, AdapterEdit(tags=("draft",))), (LOCAL, ADA)),
    "a name": (lambda it: it.adapters.rename(VOICE, AdapterName.parse("acme/speech")), (LOCAL, ADA)),
    "an adapter that is shown": (publish, (MEMBER, ANONYMOUS)),
    "a deletion": (lambda it: it.adapters.delete(VOICE), (LOCAL, ADA)),
    "damage": (mark_damaged, (LOCAL, ADA)),
    "a base that is shown": (open_base, (ADA,)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_by_another_process_is_in_the_next_search(
    name: str, registries: tuple[LocalRegistry, LocalRegistry], tmp_path: Path
) -> None:
    ours, other = registries
    change, concerned = CHANGES[name]
    before = {who.name: searched(ours, who) for who in READERS}
    change(other)
    after = {who.name: searched(ours, who) for who in READERS}
    fresh = open_local(tmp_path / "data")
    assert after == {who.name: searched(fresh, who) for who in READERS}
    fresh.close()
    assert {who.name for who in READERS if after[who.name] != before[who.name]} == {
        who.name for who in concerned
    }


def test_a_base_is_hidden_from_the_next_search(registries: tuple[LocalRegistry, LocalRegistry]) -> None:
    ours, other = registries
    open_base(other)
    base = other.bases.get("org/tiny").id
    assert base.hex.encode() in searched(ours, ADA)[0]
    other.bases.edit(base, BaseEdit(visibility="private"))
    assert not any(base.hex.encode() in page for page in searched(ours, ADA))
    assert base.hex.encode() in searched(ours, LOCAL)[0]


def test_a_search_shows_the_snapshot_that_it_found_versions_in(
    registries: tuple[LocalRegistry, LocalRegistry],
) -> None:
    """A commit during a search is visible in the next search, and its rows are not cached for the old
    snapshot.
    """
    ours, other = registries
    with ours.catalog.read_prepared() as reads:
        keys = [row.key for row in ours.catalog.encoded_versions.of(reads, [1, 2])]
        move_alias(other)
        assert b'"prod"' in ours.catalog.encoded_versions.of(reads, keys)[0].json
    with ours.catalog.read_prepared() as reads:
        assert b'"prod"' not in ours.catalog.encoded_versions.of(reads, keys)[0].json
        assert b'"prod"' in ours.catalog.encoded_versions.of(reads, keys)[1].json
