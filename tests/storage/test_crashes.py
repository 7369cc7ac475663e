"""`kill -9` at named and random points: no partial result is visible, no acknowledged change is lost, and
nothing is left behind.
"""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, NotFound
from adaptry.core.failpoints import NAMES, WITH_FILES
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import pull, push
from adaptry.registry.records import AdapterEdit, StateChange
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.file_by_file import push_file_by_file
from adaptry.testing.samples import tiny_lora

TONE = AdapterName.parse("acme/tone")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.heavy)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The registry's folder, with its rows in the folder or in PostgreSQL."""
    folder = tmp_path / "registry"
    if request.param == "postgres":
        open_local(folder, catalog=request.getfixturevalue("postgres").database()).close()
    return folder


WAYS = [
    *(pytest.param({"FILE_BY_FILE": "1"}, place, id=f"file by file-{place}") for place in NAMES),
    *(pytest.param({}, place, id=f"in one request-{place}") for place in WITH_FILES),
    *(pytest.param({"IN_ONE_PASS": "1"}, place, id=f"in one pass-{place}") for place in NAMES),
]


@pytest.mark.parametrize(("way", "place"), WAYS)
def test_a_killed_push_is_complete_or_absent_and_can_be_repeated(
    way: dict[str, str],
    place: str,
    folder: Path,
    loras: Callable[[int], list[Path]],
    start: Start,
    tmp_path: Path,
) -> None:
    (lora,) = loras(1)
    with start(str(TONE), [lora], ADAPTRY_FAILPOINT=place, **way) as process:
        assert process.communicate()[0] == ""
        assert process.returncode == -signal.SIGKILL

    registry = open_local(folder)
    assert verify(registry.catalog, registry.blobs) == ()
    assert count(registry) == (1 if place == "revisions.after_commit" else 0)
    again = push_file_by_file if way else push
    assert again(registry, open_dir(lora), TONE).version.number == 1
    pull(registry, str(TONE), tmp_path / "pulled")
    assert list(registry.blobs.stagings()) == []
    assert verify(registry.catalog, registry.blobs) == ()


@pytest.mark.parametrize("place", WITH_FILES)
def test_a_killed_push_that_recognises_the_base_binds_the_version_and_moves_the_alias_or_does_neither(
    place: str, folder: Path, tmp_path: Path, start: Start
) -> None:
    lora, base = tiny_lora(tmp_path / "lora", base_name="/gone/llama"), Digest.of(b"a base")
    registry = open_local(folder)
    first = push(registry, open_dir(lora), TONE).version
    lost = registry.versions.detail(Ref(TONE)).manifest.files[0].sha256
    registry.blobs.delete(lost)  # so that the push also stores a file
    assert len(verify(registry.catalog, registry.blobs)) == 1
    with start(str(TONE), [lora], ADAPTRY_FAILPOINT=place, BASE=base.hex, ALIAS="prod") as process:
        assert process.communicate()[0] == ""
        assert process.returncode == -signal.SIGKILL

    version = registry.versions.get(Ref(TONE))
    done = (base, ("prod",), False) if place == "revisions.after_commit" else (None, (), True)
    assert (version.number, version.digest) == (1, first.digest)
    assert (version.base_id, version.aliases, version.is_damaged) == done
    with start(str(TONE), [lora], BASE=base.hex, ALIAS="prod") as process:
        assert process.communicate()[0].split() == ["1", str(first.digest)]
    assert registry.versions.get(Ref(TONE)).base_id == base
    assert verify(registry.catalog, registry.blobs) == ()
    registry.close()


@pytest.mark.parametrize("place", NAMES)
def test_a_killed_commit_moves_the_branch_with_its_version_or_does_neither(
    place: str, folder: Path, loras: Callable[[int], list[Path]], start: Start
) -> None:
    registry = open_local(folder)
    registry.adapters.create(TONE, AdapterEdit())
    registry.close()
    (lora,) = loras(1)
    with start(str(TONE), [lora], "commit_process.py", ADAPTRY_FAILPOINT=place) as process:
        assert process.communicate()[0] == ""
        assert process.returncode == -signal.SIGKILL

    registry = open_local(folder)
    assert verify(registry.catalog, registry.blobs) == ()
    landed = 1 if place == "revisions.after_commit" else 0
    assert (count(registry), len(registry.commits.list(TONE).items)) == (landed, 1 + landed)
    with start(str(TONE), [lora], "commit_process.py") as process:
        assert process.communicate()[0].strip() == registry.commits.get(TONE).id
    assert registry.commits.get(TONE).number == 1
    assert verify(registry.catalog, registry.blobs) == ()
    registry.close()


@pytest.mark.parametrize("way", [{"TOGETHER": "1"}, {"TOGETHER": "4"}, {"TOGETHER": "4", "IN_ONE_PASS": "1"}])
def test_pushes_killed_at_random_lose_nothing_that_was_acknowledged(
    way: dict[str, str], folder: Path, loras: Callable[[int], list[Path]], start: Start
) -> None:
    folders = loras(12)
    acknowledged: dict[int, Digest] = {}
    for round_ in range(3):
        with start(str(TONE), folders[round_ * 4 :], **way) as process:
            assert process.stdout is not None
            for _ in range(random.randint(1, 4)):
                number, digest = process.stdout.readline().split()
                acknowledged[int(number)] = Digest.parse(digest)
            process.kill()
        registry = open_local(folder)
        assert verify(registry.catalog, registry.blobs) == ()
        registry.catalog.close()

    registry = open_local(folder)
    for number, digest in acknowledged.items():
        version = registry.versions.get(Ref.of_revision(TONE, digest))
        assert version.number == number
        for entry in registry.versions.detail(Ref.of_revision(TONE, digest)).manifest.files:
            assert Digest.of_chunks(registry.files.read(TONE, digest, entry.path)) == entry.sha256


@pytest.mark.parametrize("way", [{"TOGETHER": "6"}, {"IN_ONE_BATCH": "1"}], ids=["threads", "batch"])
@pytest.mark.parametrize("place", ["blobs.after_rename", "revisions.before_rows", "revisions.before_commit"])
def test_pushes_killed_during_a_group_commit_are_complete_or_absent(
    way: dict[str, str], place: str, folder: Path, loras: Callable[[int], list[Path]], start: Start
) -> None:
    folders = loras(6)
    with start(str(TONE), folders, ADAPTRY_FAILPOINT=place, **way) as process:
        acknowledged = [line.split() for line in process.communicate()[0].splitlines()]
        assert process.returncode == -signal.SIGKILL
    registry = open_local(folder)
    assert verify(registry.catalog, registry.blobs) == ()
    for number, digest in acknowledged:
        found = registry.versions.get(Ref.of_revision(TONE, Digest.parse(digest)))
        assert found.number == int(number)
    numbers = {push(registry, open_dir(lora), TONE).version.number for lora in folders}
    assert numbers == set(range(1, 7))
    assert list(registry.blobs.stagings()) == []
    assert verify(registry.catalog, registry.blobs) == ()


def test_a_refused_push_does_not_spoil_those_that_are_committed_with_it(
    folder: Path, loras: Callable[[int], list[Path]]
) -> None:
    revoked, *others = loras(6)
    registry = open_local(folder)
    digest = push(registry, open_dir(revoked), TONE).version.digest
    registry.versions.set_state(TONE, digest, StateChange(state="revoked", reason="leaks"), 0)
    with ThreadPoolExecutor(6) as pool:
        refused = pool.submit(push, registry, open_dir(revoked), AdapterName.parse("acme/copy"))
        pushed = [pool.submit(push, registry, open_dir(lora), TONE) for lora in others]
    with pytest.raises(CheckFailed, match="these weights cannot be pushed"):
        refused.result()
    assert sorted(one.result().version.number for one in pushed) == [2, 3, 4, 5, 6]
    with pytest.raises(NotFound):
        registry.adapters.get(AdapterName.parse("acme/copy"))
    assert verify(registry.catalog, registry.blobs) == ()


def test_processes_that_push_at_once_get_different_numbers(
    folder: Path, loras: Callable[[int], list[Path]], start: Start
) -> None:
    folders = loras(12)
    processes = [start(str(TONE), folders[at : at + 3]) for at in range(0, 12, 3)]
    numbers = []
    for process in processes:
        with process:
            lines = process.communicate()[0].splitlines()
            assert process.returncode == 0
            numbers += [int(line.split()[0]) for line in lines]
    assert sorted(numbers) == list(range(1, 13))
    registry = open_local(folder)
    assert verify(registry.catalog, registry.blobs) == ()


def count(registry: LocalRegistry) -> int:
    """The number of visible versions; 0 for an adapter without versions."""
    try:
        return len(registry.versions.list(TONE).items)
    except NotFound:
        return 0
