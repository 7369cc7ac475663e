"""A server with an upstream registry: missing versions are fetched once, for callers who may read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound, Unavailable, Withdrawn
from adaptry.core.lifecycle import State
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.base_registry import register_base
from adaptry.operations.mirror.apply import MIRRORED
from adaptry.operations.mirror.upstream import UpstreamMirror
from adaptry.operations.promotion import promote
from adaptry.operations.transfer import pull, push
from adaptry.operations.version_state import change_state
from adaptry.registry.commit_info import CommitNote
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import AdapterEdit, AliasInfo, PushOptions, StateChange, VersionInfo
from adaptry.storage import backup
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.aliases import LocalAliases
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.files import LocalFiles
from adaptry.storage.local.versions import LocalVersions
from adaptry.storage.pull_through import PullThroughRegistry
from adaptry.testing.samples import tiny_base
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

TONE = AdapterName.parse("acme/tone")
FIRST, SECOND, PROD = map(Ref.parse, ("acme/tone@1", "acme/tone@2", "acme/tone@prod"))
MakeLora = Callable[..., Adapter]


class Clock:
    """A clock that tests advance."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class CountingVersions(LocalVersions):
    look: Callable[[], None]

    def get(self, ref: Ref) -> VersionInfo:
        self.look()
        return super().get(ref)


@dataclass(frozen=True)
class CountingAliases(LocalAliases):
    look: Callable[[], None]

    def list(self, name: AdapterName) -> tuple[AliasInfo, ...]:
        self.look()
        return super().list(name)


@dataclass(frozen=True)
class CountingFiles(LocalFiles):
    count: Callable[[], None]

    def read(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        self.count()
        return super().read(name, revision, path, start)


class Counting(LocalRegistry):
    """Counts reads of it, and does not respond while it is `silent`."""

    reads = 0
    silent = False

    def __init__(self, context: RegistryContext) -> None:
        super().__init__(context)
        self.versions = CountingVersions(context, self._look)
        self.aliases = CountingAliases(context, self._look)
        self.files = CountingFiles(context, self._count)

    def _look(self) -> None:
        if self.silent:
            raise Unavailable("no route")

    def _count(self) -> None:
        self.reads += 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def there(source: LocalRegistry) -> Counting:
    return Counting(source.context)


@pytest.fixture
def here(there: Counting, target: LocalRegistry, clock: Clock) -> PullThroughRegistry:
    """The registry in front, with sixty seconds for pointers."""

    def is_ours(name: AdapterName) -> bool:
        try:
            return MIRRORED not in target.adapters.get(name).tags
        except NotFound:
            return False

    return PullThroughRegistry(target.context, UpstreamMirror(there, target, is_ours, 60.0, clock))


def test_a_missing_version_is_fetched_once_and_kept(
    there: Counting, here: PullThroughRegistry, lora: MakeLora, tmp_path: Path
) -> None:
    register_base(there, open_checkpoint(tiny_base(tmp_path / "base")), ("org/tiny",))
    pushed = push(there, lora(1), TONE, options=PushOptions(metrics={"accuracy": 0.5})).version

    assert pull(here, "acme/tone", tmp_path / "first").digest == pushed.digest
    assert pull(here, "acme/tone@1", tmp_path / "second").digest == pushed.digest

    assert there.reads == 2  # one of each file
    version = here.versions.get(FIRST)
    assert (version.metrics, version.base_status) == ({"accuracy": 0.5}, "verified")


def test_concurrent_readers_fetch_a_version_once(
    there: Counting, here: PullThroughRegistry, large: MakeLora, tmp_path: Path
) -> None:
    push(there, large(1), TONE)
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda number: pull(here, "acme/tone", tmp_path / str(number)).number, range(8))
        )
    assert found == [1] * 8
    assert there.reads == 2


def test_an_alias_is_resolved_upstream_again_after_its_maximum_age(
    there: Counting, here: PullThroughRegistry, lora: MakeLora, clock: Clock
) -> None:
    push(there, lora(1), TONE, options=PushOptions(alias="prod"))
    assert here.versions.get(PROD).number == 1
    push(there, lora(2), TONE)
    promote(there, SECOND, "prod")

    assert here.versions.get(PROD).number == 1
    clock.now += 61
    assert here.versions.get(PROD).number == 2
    assert [(one.alias, one.number) for one in here.aliases.list(TONE)] == [("prod", 2)]


def test_aliases_are_listed_as_upstream_has_them(
    there: Counting, here: PullThroughRegistry, lora: MakeLora
) -> None:
    push(there, lora(1), TONE, options=PushOptions(alias="prod"))
    push(there, lora(2), TONE, options=PushOptions(alias="staging"))
    assert [(one.alias, one.number) for one in here.aliases.list(TONE)] == [("prod", 1), ("staging", 2)]


def test_latest_is_that_of_the_upstream_also_after_a_newer_version_was_yanked(
    there: Counting, here: PullThroughRegistry, lora: MakeLora, clock: Clock
) -> None:
    push(there, lora(1), TONE)
    push(there, lora(2), TONE)
    assert here.versions.get(Ref.parse("acme/tone")).number == 2
    change_state(there, SECOND, StateChange(state="yanked", reason="it stutters"))
    clock.now += 61
    assert here.versions.get(Ref.parse("acme/tone")).number == 1
    assert here.versions.get(SECOND).state == "yanked"


def test_a_recall_upstream_recalls_the_local_copy(
    there: Counting, here: PullThroughRegistry, lora: MakeLora, clock: Clock, tmp_path: Path
) -> None:
    push(there, lora(1), TONE)
    pull(here, "acme/tone@1", tmp_path / "before")
    change_state(there, FIRST, StateChange(state="revoked", reason="it leaks"))
    clock.now += 61
    with pytest.raises(Withdrawn, match="it leaks"):
        pull(here, "acme/tone@1", tmp_path / "after")


def test_a_recall_that_a_restored_upstream_lost_stays_and_is_logged(
    there: Counting,
    here: PullThroughRegistry,
    target: LocalRegistry,
    lora: MakeLora,
    clock: Clock,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    push(there, lora(1), TONE)
    backup.create(there, tmp_path / "backup")
    pull(here, "acme/tone@1", tmp_path / "before")
    change_state(there, FIRST, StateChange(state="revoked", reason="it leaks"))
    clock.now += 61
    assert here.versions.get(FIRST).state == "revoked"
    backup.restore(tmp_path / "backup", tmp_path / "restored")

    with closing(open_local(tmp_path / "restored")) as restored:
        here = PullThroughRegistry(
            target.context, UpstreamMirror(restored, target, lambda name: False, 60.0, clock)
        )
        with pytest.raises(Withdrawn, match="it leaks"):
            pull(here, "acme/tone@1", tmp_path / "after")
    assert "acme/tone@1 stays revoked here" in caplog.text


def test_local_versions_are_served_while_the_upstream_is_unreachable(
    there: Counting, here: PullThroughRegistry, lora: MakeLora, clock: Clock
) -> None:
    push(there, lora(1), TONE, options=PushOptions(alias="prod"))
    push(there, lora(2), TONE)
    assert here.versions.get(PROD).number == 1
    there.silent = True
    clock.now += 61

    assert here.versions.get(PROD).number == 1
    assert [one.alias for one in here.aliases.list(TONE)] == ["prod"]
    with pytest.raises(Unavailable, match="upstream registry"):
        here.versions.get(SECOND)
    there.silent = False
    clock.now += 11
    assert here.versions.get(SECOND).number == 2


def test_an_unknown_version_is_not_found(here: PullThroughRegistry) -> None:
    with pytest.raises(NotFound):
        here.versions.get(FIRST)


def test_a_local_name_is_never_looked_up_upstream(
    there: Counting, here: PullThroughRegistry, lora: MakeLora
) -> None:
    push(there, lora(1), TONE)
    here.adapters.create(TONE, AdapterEdit())
    with pytest.raises(NotFound):
        here.versions.get(FIRST)
    assert there.reads == 0


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """A server, and one in front of it that lets everyone read public adapters."""
    with running_server(ServerSettings(data=tmp_path / "origin")) as origin:
        front = ServerSettings(
            data=tmp_path / "front",
            anonymous_read=True,
            mirror_of=origin.url,
            mirror_token=origin.token("front", "reader", ("acme",)),
        )
        with running_server(front) as server:
            yield origin, server


def test_over_http_only_a_holder_of_the_namespace_gets_upstream_versions(
    servers: tuple[Server, Server], lora: MakeLora, tmp_path: Path
) -> None:
    origin, front = servers
    push(origin.registry(), lora(1), TONE)
    origin.registry().adapters.edit(TONE, AdapterEdit(visibility="public"))
    push(origin.registry(), lora(2), "other/voice")
    stranger, ron = HttpRegistry(front.url), front.registry(front.token("ron", "reader", ("acme",)))

    for _ in range(2):
        with pytest.raises(NotFound):
            stranger.versions.get(FIRST)
        assert pull(ron, "acme/tone@1", tmp_path / "pulled").number == 1
    assert ron.adapters.get(TONE).visibility == "private"
    assert [one.by for one in ron.adapters.history(TONE).items][-1] == "mirror"
    with pytest.raises(NotFound):
        front.registry().versions.get(
            Ref.parse("other/voice@1")
        )  # the token for the origin has no rights there


def test_a_deleted_local_name_is_not_fetched_from_the_upstream(
    servers: tuple[Server, Server], lora: MakeLora
) -> None:
    origin, front = servers
    push(origin.registry(), lora(1), TONE)
    push(front.registry(), lora(2), TONE)
    front.registry().adapters.delete(TONE)
    with pytest.raises(NotFound):
        front.registry().versions.get(FIRST)


def test_an_upstream_that_refuses_our_token_is_unavailable_not_a_callers_error(
    tmp_path: Path, lora: MakeLora
) -> None:
    with running_server(ServerSettings(data=tmp_path / "origin")) as origin:
        settings = ServerSettings(data=tmp_path / "front", mirror_of=origin.url, mirror_token="adr_wrong")
        with (
            running_server(settings) as front,
            pytest.raises(Unavailable, match="refuses this registry's token"),
        ):
            front.registry().versions.get(FIRST)


def test_hub_clients_read_through_the_upstream_too(servers: tuple[Server, Server], lora: MakeLora) -> None:
    origin, front = servers
    push(origin.registry(), lora(1), TONE)
    found = front.call("GET", "/acme/tone/resolve/main/adapter_config.json")
    assert found.status == 200
    assert b"LORA" in found.body


@pytest.mark.parametrize("state", ["quarantined", "revoked"])
def test_a_version_withdrawn_upstream_cannot_be_pushed(
    there: Counting, here: PullThroughRegistry, lora: MakeLora, state: State
) -> None:
    pushed = push(there, lora(1), TONE).version
    change_state(there, FIRST, StateChange(state=state, reason="it leaks"))
    with pytest.raises(Withdrawn, match="it leaks"):
        push(here, lora(1), TONE)
    with pytest.raises(Withdrawn, match="it leaks"):
        here.commits.put(
            TONE, "main", there.commits.tree(TONE, pushed.digest).to_bytes(), CommitNote(title="again")
        )
    with pytest.raises(NotFound):
        here.versions.get(FIRST)


def test_a_push_of_an_upstream_version_gets_its_upstream_number(
    there: Counting, here: PullThroughRegistry, lora: MakeLora
) -> None:
    push(there, lora(1), TONE)
    push(there, lora(2), TONE)
    change_state(there, SECOND, StateChange(state="deprecated", reason="use 1"))
    pushed = push(here, lora(2), TONE)
    assert (pushed.is_new, pushed.version.number, pushed.version.state) == (False, 2, "deprecated")
    assert MIRRORED in here.adapters.get(TONE).tags


def test_a_push_works_while_the_upstream_is_unreachable(
    there: Counting, here: PullThroughRegistry, lora: MakeLora
) -> None:
    there.silent = True
    assert push(here, lora(1), "acme/own").version.number == 1
