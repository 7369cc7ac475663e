"""Sweeps and pushes interleaved at every step of either.

The swept bytes are those that are pushed: they belong to a deleted adapter or an abandoned push. Whatever the
order, a version that was created has all its bytes.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, NotFound, Unavailable
from adaptry.core.failpoints import GC_POINTS, NAMES, VARIABLE, WITH_FILES
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push, upload
from adaptry.storage.catalog.pending_deletes import DELETE_TIMEOUT
from adaptry.storage.catalog.rows import PendingDeleteRow
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.gc import collect_garbage
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.flaky_registry import NO_WAIT
from adaptry.testing.samples import tiny_lora
from adaptry.testing.warm_python import WarmPython, run_warm

from .push_load import NAMES as PUSHED_NAMES

TONE = AdapterName.parse("acme/tone")
BEFORE_ROWS = [place for place in NAMES if place not in ("revisions.before_commit", "revisions.after_commit")]
OF_A_PUSH = [
    *(("file by file", place) for place in BEFORE_ROWS),
    *(("in one request", place) for place in BEFORE_ROWS if place in WITH_FILES),
    *(("in one pass", place) for place in BEFORE_ROWS),
]
EVERY = [
    pytest.param(*pushing, sweeping, marks=[] if number % 25 == 0 else pytest.mark.heavy)
    for number, (pushing, sweeping) in enumerate(itertools.product(OF_A_PUSH, GC_POINTS))
]
"""The quick run has five of them."""


class Standing:
    """A process that stops at a failpoint when it reaches it."""

    def __init__(self, script: str, place: str, *words: object) -> None:
        self.process = WarmPython(
            [sys.executable, str(Path(__file__).with_name(script)), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, VARIABLE: f"stop:{place}"},
        )
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        """Waits until the process is stopped, or has ended."""
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def reached(self, timeout: float = 60) -> bool:
        """Whether it is stopped or has ended, after at most this many seconds."""
        self._watcher.join(timeout)
        return not self._watcher.is_alive()

    def answer(self) -> str:
        """Lets it continue to its end, and returns its output."""
        assert self.reached()
        self.process.send_signal(signal.SIGCONT)
        out, error = self.process.communicate(timeout=100)
        assert self.process.returncode == 0, error
        return out.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A registry in which the bytes of `out` have no owner."""
    registry = open_local(tmp_path / "registry")
    push(registry, open_dir(tiny_lora(tmp_path / "out")), TONE)
    registry.adapters.delete(TONE)
    registry.close()
    return tmp_path / "registry"


def assert_whole(folder: Path) -> None:
    registry = open_local(folder)
    assert verify(registry.catalog, registry.blobs) == ()
    assert len(registry.versions.list(TONE).items) == 1
    assert collect_garbage(registry, grace=timedelta(0)).deleted == 0
    registry.close()


@pytest.mark.parametrize(("way", "pushing", "sweeping"), EVERY)
def test_a_sweep_during_a_push_deletes_none_of_its_files(
    way: str, pushing: str, sweeping: str, folder: Path, tmp_path: Path
) -> None:
    pushes = Standing("push_process.py", pushing, folder, TONE, tmp_path / "out", way)
    assert pushes.reached()
    sweeps = Standing("sweep_process.py", sweeping, folder)
    assert sweeps.reached()
    pushes.process.send_signal(signal.SIGCONT)
    with suppress(subprocess.TimeoutExpired):  # a process that waits for the sweep continues after it
        pushes.process.wait(timeout=2)
    sweeps.answer()
    assert pushes.answer() == "2"
    assert_whole(folder)


@pytest.mark.parametrize(("way", "pushing", "sweeping"), EVERY)
def test_a_push_during_a_sweep_loses_no_file(
    way: str, pushing: str, sweeping: str, folder: Path, tmp_path: Path
) -> None:
    sweeps = Standing("sweep_process.py", sweeping, folder)
    assert sweeps.reached()
    pushes = Standing("push_process.py", pushing, folder, TONE, tmp_path / "out", way)
    pushes.reached(2)  # if the bytes are being deleted, it waits for that first
    sweeps.answer()
    assert pushes.answer() == "2"
    assert_whole(folder)


KILLED = [
    pytest.param(place, marks=[] if place in ("gc.after_rows", "gc.after_bytes") else pytest.mark.heavy)
    for place in GC_POINTS
]


@pytest.mark.parametrize("place", KILLED)
def test_a_sweep_killed_at_any_point_is_finished_by_the_next(
    place: str, folder: Path, tmp_path: Path
) -> None:
    script = Path(__file__).with_name("sweep_process.py")
    killed = run_warm(
        [sys.executable, str(script), str(folder)], env={**os.environ, VARIABLE: place}, check=False
    )
    assert killed.returncode == -signal.SIGKILL

    registry = open_local(folder)
    assert verify(registry.catalog, registry.blobs) == ()
    if place in ("gc.after_claim", "gc.after_bytes"):
        _let_lapse(registry)
    assert push(registry, open_dir(tmp_path / "out"), TONE).version.number == 2
    registry.close()
    assert_whole(folder)


def _let_lapse(registry: LocalRegistry) -> None:
    """Acts as if two minutes had passed, after which a sweep counts as dead; until then, its bytes may not be
    stored again.
    """
    with registry.catalog.read() as tx:
        going = [Digest(row.digest) for row in tx.exec(select(PendingDeleteRow)) if row.deleting_since]
    with pytest.raises(Unavailable, match="being deleted"):
        registry.uploads.open(TONE, going[0], 3)
    with registry.catalog.write() as tx:
        for row in tx.exec(select(PendingDeleteRow)):
            assert row.deleting_since
            row.deleting_since = row.deleting_since - DELETE_TIMEOUT


STORM = [
    pytest.param("files", 60, 0),
    pytest.param("files", 20_000, 600, marks=pytest.mark.heavy),
    pytest.param("postgres and a bucket", 500, 60, marks=pytest.mark.heavy),
]
"""Where, and until how many pushes and seconds: a short one in the quick run; in the long one, 20,000 and ten
minutes.
"""
_SWEEP_EVERY = 0.1  # seconds
_DELETE_EVERY = 2.0


class Storming:
    """A process that pushes until the end of the block."""

    def __init__(self, folder: Path, seed: int, outs: list[Path]) -> None:
        words = [sys.executable, str(Path(__file__).with_name("push_load.py")), str(folder), str(seed)]
        self._process = WarmPython(
            [*words, *map(str, outs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pushes = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.pushes = max(self.pushes, int(line))

    def is_at_it(self) -> bool:
        return self._process.poll() is None

    def __enter__(self) -> Storming:
        return self

    def __exit__(self, *raised: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(100)
        self._reader.join()
        self._process.stdout.close()
        assert self._process.returncode == 0


@pytest.mark.parametrize(("where", "pushes", "seconds"), STORM)
def test_in_a_storm_of_pushes_copies_and_deletions_no_version_loses_a_byte(
    where: str, pushes: int, seconds: float, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Three processes with two threads each push adapters, most of which exist already. Meanwhile this
    process sweeps every 100 ms without grace, deletes adapters, and uploads files that no version will use.
    """
    folder = tmp_path / "registry"
    catalog = blobs = None
    if where != "files":
        catalog = request.getfixturevalue("postgres").database()
        blobs = request.getfixturevalue("s3_place")
    outs = [tiny_lora(tmp_path / f"out-{seed}", seed=seed, hidden=8, layers=1) for seed in range(4)]
    contents = [open_dir(out).content for out in outs]
    over = threading.Event()
    source = random.Random(7)
    swept = itertools.count()

    def again(work: Callable[[], None], pause: float) -> Future[None]:
        def run() -> None:
            while not over.wait(pause):
                with suppress(NotFound, Conflict):  # it does not exist, or is being deleted
                    work()

        return pool.submit(run)

    def sweep_all() -> None:
        collect_garbage(registry, grace=timedelta(0))
        next(swept)

    def send_one() -> None:
        content = source.choice(contents)
        for path in content.sizes:
            upload(registry, TONE, content, path, Digest.of_chunks(content.chunks(path)), None, NO_WAIT)

    def delete_one() -> None:
        registry.adapters.delete(AdapterName.parse(f"acme/tone-{source.randrange(PUSHED_NAMES)}"))

    with closing(open_local(folder, catalog=catalog, blobs=blobs)) as registry:
        begun = time.monotonic()
        with (
            ThreadPoolExecutor(3) as pool,
            Storming(folder, 1, outs) as one,
            Storming(folder, 2, outs) as two,
            Storming(folder, 3, outs) as three,
        ):
            storm = (one, two, three)
            others = [again(sweep_all, _SWEEP_EVERY), again(send_one, 1.0), again(delete_one, _DELETE_EVERY)]
            try:
                while sum(each.pushes for each in storm) < pushes or time.monotonic() - begun < seconds:
                    assert all(each.is_at_it() for each in storm)
                    if wait(others, 0.2, FIRST_EXCEPTION).done:
                        break  # its error is raised below
            finally:
                over.set()
        for each in others:
            each.result()
        made, took = sum(each.pushes for each in storm), time.monotonic() - begun
        print(f"{made} pushes, {next(swept)} sweeps, {took:.0f} s")

        assert verify(registry.catalog, registry.blobs) == ()
        assert made >= pushes
        collect_garbage(registry, grace=timedelta(0))
        assert verify(registry.catalog, registry.blobs) == ()
