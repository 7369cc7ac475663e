"""A registry, its jobs and a worker's cache, written before modules and classes were renamed (commit
8ae69c2), open unchanged.

`before_module_renames/registry.tar.gz` was filled by that commit's own commands: two adapters on a base, an
alias, a deprecated version, a combination, a job and a schedule. `expected.json` has the results of that
registry.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adaptry import open_dir
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.serving import Cache
from adaptry.operations.transfer import pull, push
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify

BEFORE = Path(__file__).parent / "before_module_renames"
NAMES = ("acme/tone", "acme/voice", "acme/both")


@pytest.fixture
def expected() -> Any:
    return with_new_names(json.loads((BEFORE / "expected.json").read_text()))


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    with tarfile.open(BEFORE / "registry.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def old(unpacked: Path) -> Iterator[LocalRegistry]:
    registry = open_local(unpacked / "data")
    yield registry
    registry.close()


def dumped(values: Any) -> list[Any]:
    return [value.model_dump(mode="json") for value in values]


NEW_NAMES = {"tries": "attempts", "fault": "error", "standing": "last_state_change"}
NEW_KINDS = {"commit.made": "commit.created"}


def with_new_names(value: Any) -> Any:
    """Earlier results, with the names of fields and events since schema 0035. (`Any`: JSON.)"""
    match value:
        case dict():
            return {NEW_NAMES.get(name, name): with_new_names(each) for name, each in value.items()}
        case list():
            return [with_new_names(each) for each in value]
        case str():
            return NEW_KINDS.get(value, value)
    return value


def with_timeout(job: dict[str, Any]) -> dict[str, Any]:
    """An earlier job, with the time limit that its steps lacked. (`Any`: JSON.)"""
    return job | {"needs": job["needs"] | {"timeout": 86_400}}


def test_an_older_registry_gives_the_same_answers(old: LocalRegistry, expected: Any) -> None:
    for name in map(AdapterName.parse, NAMES):
        versions = old.versions.list(name).items
        assert dumped(versions) == expected[str(name)]["versions"]
        assert dumped(old.commits.list(name).items) == expected[str(name)]["commits"]
        aliases = [alias | {"promotion": None} for alias in expected[str(name)]["aliases"]]
        assert dumped(old.aliases.list(name)) == aliases
        details = [old.versions.detail(Ref.parse(f"{name}@{version.number}")) for version in versions]
        assert [json.loads(detail.model_dump_json()) for detail in details] == expected[str(name)]["details"]
    assert dumped(old.bases.list().items) == expected["bases"]
    assert dumped(old.events.read(after=0, limit=200).items) == expected["events"]
    assert dumped(old.jobs.list().items) == [*map(with_timeout, expected["jobs"])]
    assert dumped(old.jobs.schedules()) == [
        schedule | {"order": with_timeout(schedule["order"])} for schedule in expected["schedules"]
    ]


def test_an_older_registry_has_no_damage(old: LocalRegistry) -> None:
    assert verify(old.catalog, old.blobs, read_bytes=True) == ()


def test_files_pushed_before_are_the_same_version_now(old: LocalRegistry, unpacked: Path) -> None:
    claim = old.versions.detail(Ref.parse("acme/tone@1")).manifest.base
    pushed = push(old, open_dir(unpacked / "one"), "acme/tone", base=claim)

    assert (pushed.version.number, pushed.is_new) == (1, False)
    pulled = pull(old, "acme/tone@1", unpacked / "pulled")
    assert pulled.digest == pushed.version.digest


def test_a_workers_older_cache_is_still_used(old: LocalRegistry, unpacked: Path, expected: Any) -> None:
    cache = Cache(unpacked / "workercache")
    digest = old.versions.get(Ref.parse("acme/tone@prod")).digest

    assert cache.acquire_local(digest) is not None
    cache.close()
