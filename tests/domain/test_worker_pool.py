"""Worker processes are reused, limited for each request, and replaced when one ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adaptry.core.processes import worker_pool
from adaptry.core.processes.bounded import ProcessFailed, ProcessLimits, ProcessTimeout
from adaptry.core.processes.worker_pool import WorkerPool

LIMITS = ProcessLimits(seconds=5, memory=256 << 20, answer=1 << 20)
Write = Callable[[str], str]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module whose `answer` has the given body, and returns its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("ADAPTRY_TOKEN", "secret")

    def write(body: str) -> str:
        name = f"task_{len(list(tmp_path.iterdir()))}"
        (tmp_path / f"{name}.py").write_text(f"import os\ndef answer(data, *arguments):\n    {body}\n")
        return name

    return write


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    made = WorkerPool()
    yield made
    worker_pool._end_all(made._idle)


def test_one_process_answers_one_request_after_another(task: Write, pool: WorkerPool) -> None:
    process = task("return str(os.getpid()).encode()")
    first = pool.run(process, b"", LIMITS)
    assert pool.run(task("return data[::-1] + arguments[0].encode()"), b"abc" * 99_999, LIMITS, ["é"]) == (
        b"cba" * 99_999 + "é".encode()
    )
    assert pool.run(process, b"", LIMITS) == first


def test_limits_apply_to_each_request(task: Write, pool: WorkerPool) -> None:
    small, busy = (
        task("return str(len(bytearray(200 << 20))).encode()"),
        task("import re; re.match('(a|a)*b', 'a' * 60)"),
    )
    with pytest.raises(ProcessTimeout, match=r"0\.3 s of processor time"):
        pool.run(busy, b"", ProcessLimits(0.3))
    assert pool.run(small, b"", ProcessLimits(5, 1 << 30)) == str(200 << 20).encode()
    with pytest.raises(ProcessFailed, match="128 MiB"):
        pool.run(small, b"", ProcessLimits(5, 128 << 20))
    assert pool.run(small, b"", ProcessLimits(5, 1 << 30)) == str(200 << 20).encode()


def test_processor_time_is_limited_per_request(task: Write, pool: WorkerPool) -> None:
    work = task(
        "import time\n    end = time.process_time() + 0.2\n"
        "    while time.process_time() < end: pass\n    return b'.'"
    )
    for _ in range(4):
        assert pool.run(work, b"", ProcessLimits(0.5)) == b"."


def test_a_crash_is_an_error_and_the_next_request_gets_another_process(task: Write, pool: WorkerPool) -> None:
    for body, code in (("os._exit(3)", 3), ("os.kill(os.getpid(), 11)", -11), ("raise ValueError", 1)):
        with pytest.raises(ProcessFailed, match=f"code {code} "):
            pool.run(task(body), b"", LIMITS)
    with pytest.raises(ProcessFailed, match="without an answer"):
        pool.run(task("os._exit(0)"), b"", LIMITS)
    assert pool.run(task("return b'.'"), b"", LIMITS) == b"."


def test_a_worker_that_ended_is_replaced_silently(task: Write, pool: WorkerPool) -> None:
    process = task("return str(os.getpid()).encode()")
    first = int(pool.run(process, b"", LIMITS))
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while pool._idle[0].is_alive and time.monotonic() < deadline:
        time.sleep(0.01)
    assert int(pool.run(process, b"", LIMITS)) != first


def test_a_worker_is_not_kept_after_a_large_request(task: Write, pool: WorkerPool) -> None:
    process = task("return str(os.getpid()).encode()")
    first = pool.run(process, bytes(5 << 20), LIMITS)
    assert pool.run(process, b"", LIMITS) != first


def test_an_oversized_answer_is_not_read(task: Write, pool: WorkerPool) -> None:
    with pytest.raises(ProcessFailed, match="1,001 bytes"):
        pool.run(task("return bytes(1001)"), b"", ProcessLimits(5, answer=1000))


def test_a_worker_has_no_secrets(task: Write, pool: WorkerPool) -> None:
    assert pool.run(task("return str('ADAPTRY_TOKEN' in os.environ).encode()"), b"", LIMITS) == b"False"


def test_a_process_that_freezes_in_the_middle_of_its_answer_holds_its_caller_for_a_bounded_time(
    task: Write, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "wall_clock_limit", lambda limits: 2.0)
    half = (100).to_bytes(8, "big") + b"half"
    work = task(f"os.write(1, {half!r})\n    os.kill(os.getpid(), {int(signal.SIGSTOP)})")
    with pytest.raises(ProcessFailed, match="did not answer in time"):
        pool.run(work, b"", ProcessLimits(1.0))
