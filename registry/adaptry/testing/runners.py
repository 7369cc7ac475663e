"""Real runners for tests: `adaptry work` as a process that can be killed, stopped or awaited; a registry with
jobs.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.failpoints import GATE, VARIABLE
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.registry.job_types.records import JobInfo, JobOrder
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry.testing.warm_python import WarmPython

TIMEOUT = 180.0  # seconds, for a busy machine
WHOLE_MERGE = JobOrder(
    kind="merge", task={"base": "org/tiny", "inputs": ["acme/tone@1"], "to": "acme/merged"}
)
"""A merge whose files are one piece."""
MERGE = JobOrder(kind="merge", task={**WHOLE_MERGE.task, "divide": True})
"""The same merge, with a piece for each weight file."""


def make_merge_registry(
    folder: Path, scraps: Path, *, catalog: str | None = None, shards: int = 2
) -> LocalRegistry:
    """A registry with the base `org/tiny` in this many files, and the adapter `acme/tone` for it. Their width
    is one that the llvm kernel supports, since a process that loads torch takes two seconds longer."""
    registry = open_local(folder, catalog=catalog)
    base = open_checkpoint(tiny_base(scraps / "base", hidden=32, shards=shards))
    register_base(registry, base, ("org/tiny",), store=True, cache=scraps / "seen")
    push(registry, open_dir(tiny_lora(scraps / "tone", hidden=32)), "acme/tone")
    return registry


class FailpointGate:
    """A failpoint at which the first process with `environ` that reaches it waits; its other threads
    continue.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.environ = {GATE: str(folder)}

    def arm(self, place: str) -> None:
        """Arms the failpoint `place`."""
        new = self._folder / "new"
        new.write_text(place)
        new.replace(self._folder / "place")

    def wait_for_arrival(self) -> int:
        """Waits until a process is stopped at the gate; returns its id."""
        here = self._folder / "here"
        wait_until(lambda: here.exists() and here.read_text().endswith("\n"), "a process to reach the gate")
        return int(here.read_text())

    def open(self) -> None:
        """Releases the waiting process and disarms the gate."""
        for name in ("place", "here"):
            (self._folder / name).unlink(missing_ok=True)


class RunnerProcess:
    """An `adaptry work` on the registry in a folder; `armed`: with a failpoint in it and in its steps."""

    def __init__(
        self,
        data: Path,
        *options: str,
        armed: str | None = None,
        lease: float = 2.0,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        command = [sys.executable, "-m", "adaptry_cli", "work", "--data", str(data)]
        self._data = data
        self.process = WarmPython(
            [*command, "--poll", "0.4", "--lease", str(lease), *options],
            env={**os.environ, **({VARIABLE: armed} if armed else {}), **(environ or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # the runner's steps die, stop and continue with it
        )

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Waits for the process to end. After a timeout, the exception has its stderr."""
        try:
            _, complaint = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        if self.process.returncode > 0:
            raise AssertionError(complaint.decode())
        return self.process.returncode

    def kill(self) -> None:
        """Kills the runner and its steps at once, as a power failure does."""
        self._signal(signal.SIGKILL)
        self.process.communicate()

    def stop(self) -> int:
        """Terminates the runner and waits for its end."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def freeze(self) -> None:
        """Stops the runner and its steps at a moment when they hold no lock on the jobs' database, since a
        stopped one with a lock would block every other runner as well.
        """
        awake = [pid for pid, state in live_processes(self.process.pid).items() if state != "T"]
        for _ in range(100):
            _send(awake, signal.SIGSTOP)
            if not _is_locked(self._data / "jobs.sqlite"):
                break
            _send(awake, signal.SIGCONT)
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return


@contextmanager
def start_runner(
    data: Path,
    *options: str,
    armed: str | None = None,
    lease: float = 2.0,
    environ: Mapping[str, str] | None = None,
) -> Iterator[RunnerProcess]:
    """A runner that is killed at the end of the block."""
    started = RunnerProcess(data, *options, armed=armed, lease=lease, environ=environ)
    try:
        yield started
    finally:
        started.kill()


def wait_until(is_so: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
    """Polls until `is_so`. Raises `AssertionError` after a long time."""
    deadline = time.monotonic() + timeout
    while not is_so():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.1)


def wait_for_job(registry: LocalRegistry, id: str, timeout: float = TIMEOUT) -> JobInfo:
    """Waits until the job has ended, and returns it."""
    wait_until(lambda: not registry.jobs.get(id).is_open, f"the end of {id}", timeout)
    return registry.jobs.get(id)


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _is_locked(database: Path) -> bool:
    if not database.exists():
        return False
    with closing(sqlite3.connect(database, timeout=0.5, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.execute("ROLLBACK")
    return False


def is_stopped(pid: int) -> bool:
    """Whether a process of a session is stopped at a failpoint."""
    return any(state == "T" for state in live_processes(pid).values())


def live_processes(session: int) -> dict[int, str]:
    """The live processes of a session, each with its state letter (proc(5))."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        state, _, its = _stat(int(folder.name))
        if its == session and state not in "ZX":
            found[int(folder.name)] = state
    return found


def has_steps(runner: int) -> bool:
    """Whether a runner has processes that run steps, besides itself and the warm one they are copies of."""
    return any(
        b"adaptry.jobs.step_process_main" in _command(pid)
        or (b"adaptry.jobs.fork_server" in _command(pid) and _stat(pid)[1] != runner)
        for pid in live_processes(runner)
    )


def _stat(pid: int) -> tuple[str, int, int]:
    """A process's state, parent and session; those of a dead one if the process does not exist."""
    try:
        # after the name, which may hold anything: state, parent, group, session
        state, parent, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0, 0
    return state, int(parent), int(session)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
