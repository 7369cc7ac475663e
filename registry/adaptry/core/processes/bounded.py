"""A child process with limits: it runs one module over untrusted bytes, and is killed if it exceeds them.

The child reads one request from its standard input and writes one answer to its standard output. It limits
its processor time and memory before it reads the request. So a hostile request can neither hold the
caller's interpreter lock nor outlive the caller. The limit is on processor time, so the result does not
depend on how busy the machine is. A much longer limit on wall-clock time ends a child that hangs.

All callers in a process share as many children as there are processors, but at least two: eight children on
two processors would slow other work in spite of their lower priority.

Children start without installed packages (20 ms), unless `needs_packages` is set.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from adaptry.core.lazy_dataclass import dataclass

_ROOT = str(Path(__file__).resolve().parents[3])  # the folder that contains `adaptry`
_OUT_OF_MEMORY = 75
_OUT_OF_TIME = (-signal.SIGPROF, -signal.SIGXCPU)  # the child's own timer, and the kernel's limit behind it
_SHORTEST_WAIT = 60.0
_CHILDREN = threading.BoundedSemaphore(max(2, os.cpu_count() or 2))
_TIMEOUT = 120.0  # seconds that a caller waits for a child slot
_WALL_FACTOR = 30.0
NICENESS = 5
_LOWEST_PRIORITY = 19
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")

# Runs before any import. Lower priority: the caller's other work comes first.
_START = """\
import os, resource, signal, sys
seconds, memory, root, module = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
os.nice(int(sys.argv[5]))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 2, int(seconds) + 3))
try:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
except (OSError, ValueError):
    pass  # the system does not offer it (macOS)
sys.path.insert(0, root)
import runpy
signal.signal(signal.SIGPROF, signal.SIG_DFL)
signal.setitimer(signal.ITIMER_PROF, seconds)
sys.argv = [module, *sys.argv[6:]]
try:
    runpy.run_module(module, run_name="__main__")
    sys.stdout.flush()
except MemoryError:
    os._exit(75)
"""


class _Priority:
    """The default niceness of children; `start_children_at_lowest_priority` changes it."""

    niceness = NICENESS


_priority = _Priority()


def start_children_at_lowest_priority() -> None:
    """Starts children at the lowest priority from now on. For servers, whose other requests come first.

    While threads of normal priority use all processors, a child gets one or two percent of one.
    """
    _priority.niceness = _LOWEST_PRIORITY


class ProcessTimeout(Exception):
    """The child used up its processor time. `answer` has the bytes that it had written by then."""

    def __init__(self, message: str, answer: bytes = b"") -> None:
        super().__init__(message)
        self.answer = answer


class ProcessFailed(Exception):
    """The child gave no answer: it ran out of memory, crashed, hung, or could not be started."""


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Limits of one child: seconds of processor time, bytes of address space, bytes of its answer."""

    seconds: float
    memory: int = 512 << 20
    answer: int = 1 << 20


def run_bounded(
    module: str,
    request: bytes,
    limits: ProcessLimits,
    *,
    arguments: Sequence[str] = (),
    descriptors: Sequence[int] = (),
    needs_packages: bool = False,
) -> bytes:
    """The answer of `python -m module` to `request`.

    `descriptors` are open files that the child inherits under the same numbers. `needs_packages` makes
    installed packages importable; without it there is the standard library and `adaptry`.

    Raises `ProcessTimeout` if the child used up its processor time, and `ProcessFailed` if it gave no answer
    within `limits` for any other reason.
    """
    with child_slot():
        process = start_bounded(
            module,
            limits,
            arguments=arguments,
            descriptors=descriptors,
            needs_packages=needs_packages,
        )
        answer = _exchange(process, request, limits)
    check_exit(process.returncode, limits, answer[: limits.answer])
    if len(answer) > limits.answer:
        raise ProcessFailed(f"the process returned {len(answer):,} bytes; at most {limits.answer:,} are read")
    return answer


@contextmanager
def child_slot() -> Iterator[None]:
    """Waits for a free child slot of this process. Raises `ProcessFailed` if none becomes free in time."""
    if not _CHILDREN.acquire(timeout=_TIMEOUT):
        raise ProcessFailed("all processes for such work are busy; try again")
    try:
        yield
    finally:
        _CHILDREN.release()


def start_bounded(
    module: str,
    limits: ProcessLimits,
    *,
    arguments: Sequence[str] = (),
    descriptors: Sequence[int] = (),
    needs_packages: bool = False,
    niceness: int | None = None,
    stdin: int = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Starts a child, for a caller that communicates with it. `limits.seconds` apply until it sets a timer.

    `stdin` is a descriptor for its standard input; without it, that is a pipe, like its output. Raises
    `ProcessFailed` if the child cannot be started.
    """
    flags = ["-P"] if needs_packages else ["-I", "-S"]
    command = [sys.executable, *flags, "-c", _START, repr(limits.seconds), str(limits.memory), _ROOT, module]
    try:
        return subprocess.Popen(
            [*command, str(_priority.niceness if niceness is None else niceness), *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=descriptors,
            env=_environment(),
        )
    except OSError as error:
        raise ProcessFailed(f"the process could not be started: {error}") from error


def _exchange(process: subprocess.Popen[bytes], request: bytes, limits: ProcessLimits) -> bytes:
    """Sends the request and reads the answer. The child has ended on return or `ProcessFailed`."""
    timeout = wall_clock_limit(limits)
    with process:
        try:
            return process.communicate(request, timeout)[0]
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"the process did not answer within {timeout:.0f} s") from None
        finally:
            process.kill()


def wall_clock_limit(limits: ProcessLimits) -> float:
    """Seconds after which a child that has not answered counts as hung."""
    return max(_SHORTEST_WAIT, limits.seconds * _WALL_FACTOR)


def check_exit(code: int, limits: ProcessLimits, answer: bytes = b"") -> None:
    """Raises `ProcessTimeout`, with the answer so far, or `ProcessFailed`, according to a child's exit code;
    does nothing for 0.
    """
    if code in _OUT_OF_TIME:
        raise ProcessTimeout(f"the process used up its {limits.seconds:g} s of processor time", answer)
    if code == _OUT_OF_MEMORY:
        raise ProcessFailed(f"the process needed more than its {limits.memory >> 20:,} MiB of memory")
    if code:
        raise ProcessFailed(f"the process ended with code {code} and gave no answer")


def _environment() -> dict[str, str]:
    """Variables that say where things are installed, without secrets. Limits numeric libraries to one
    thread.
    """
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
