"""Starts the processes of steps: copies of a warm process on Linux, else new interpreters.

There are two warm processes, each started when a step first needs it: only one of them has imported torch,
which takes seconds and several hundred megabytes that a merge can do without. If a warm process has ended or
cannot be started, the step gets a new interpreter, which is slower but otherwise the same.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import field
from typing import IO, Protocol

from adaptry.core.errors import Unavailable
from adaptry.core.lazy_dataclass import dataclass

_LOG = logging.getLogger("adaptry.jobs")
_PASSED_VARIABLES = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "VIRTUAL_ENV")
_PREFIXES = (
    "ADAPTRY_",
    "AWS_",
    "COVERAGE_",
    "CUDA_",
    "HIP_",
    "MKL_",
    "OMP_",
    "OPENBLAS_",
    "OTEL_",
    "PG",
    "SSL_",
    "XDG_",
)
_TIMEOUT = 180.0  # seconds that a fork may take; the first includes the imports
WITH_TORCH = "--torch"
"""The option of a fork server that imports torch too."""
_CAN_FORK = hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")


class LaunchedProcess(Protocol):
    """A running process, with the interface of `subprocess.Popen`."""

    pid: int
    returncode: int | None
    stdin: IO[str] | None
    stdout: IO[str] | None
    stderr: IO[str] | None

    def kill(self) -> None: ...

    def wait(self) -> int | None: ...


class StepLauncher:
    """Starts processes for steps, from any thread; `close` ends the warm ones."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = step_environment(environ)
        self._plain = _WarmProcess(self._environ)
        self._with_torch = _WarmProcess(self._environ, WITH_TORCH)

    def start(self, scratch: str, uses_torch: bool = False) -> LaunchedProcess:
        """Starts a process whose temporary files are in `scratch`. Raises `Unavailable`."""
        variables = {"TMPDIR": scratch}  # deleted with the scratch folder if the process is killed
        if _CAN_FORK:
            try:
                return (self._with_torch if uses_torch else self._plain).fork(variables)
            except OSError as error:
                _LOG.warning("no copy of the warm process for a step: %s; starting a new one", error)
        return new_interpreter(self._environ | variables)

    def warm_up(self) -> None:
        """Starts the warm process without torch, so that its imports run in parallel with the caller's
        work.
        """
        if _CAN_FORK:
            with suppress(OSError):  # the first step tries again
                self._plain.start()

    def close(self) -> None:
        self._plain.close()
        self._with_torch.close()


class _WarmProcess:
    """A fork server, started by `start` or the first `fork`, from any thread. `options` are the server's."""

    def __init__(self, environ: Mapping[str, str], *options: str) -> None:
        self._environ = environ
        self._options = options
        self._lock = threading.Lock()
        self._server: _ForkServer | None = None
        self._is_closed = False

    def start(self) -> None:
        """Starts the server, unless it is running; does not wait for its imports. Raises `OSError`."""
        with self._lock:
            self._running()

    def fork(self, variables: Mapping[str, str]) -> LaunchedProcess:
        """Forks the server. Raises `OSError`; the next call then tries with another server."""
        with self._lock:
            server = self._running()
            try:
                return server.fork(variables)
            except OSError:
                self._server = None
                server.close()
                raise

    def _running(self) -> _ForkServer:
        server = self._server = self._server or _ForkServer(self._environ, self._options)
        if self._is_closed:  # `close` may have found no server to kill, and waits for the lock
            server.kill()
        return server

    def close(self) -> None:
        self._is_closed = True
        if starting := self._server:
            starting.kill()  # before the lock: a fork that waits for the server's imports ends at once
        with self._lock:
            if self._server:
                self._server.close()
            self._server = None


def new_interpreter(environ: Mapping[str, str]) -> LaunchedProcess:
    """A new interpreter for a step. Raises `Unavailable`."""
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "adaptry.jobs.step_process_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environ,
        )
    except OSError as error:
        raise Unavailable(f"cannot start the process for a step of a job: {error}") from error


def step_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that locate installed software and open the stores; no other secrets of the runner are
    included.
    """
    return {
        name: value
        for name, value in variables.items()
        if (name in _PASSED_VARIABLES or name.startswith(_PREFIXES)) and name != "ADAPTRY_TOKEN"
    }


class _ForkServer:
    """`adaptry.jobs.fork_server` in a process; used by one thread at a time."""

    def __init__(self, environ: Mapping[str, str], options: Sequence[str]) -> None:
        """Starts the server. Raises `OSError`."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_TIMEOUT)
        with theirs, ExitStack() as stack:
            stack.callback(self._socket.close)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "adaptry.jobs.fork_server", *options],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=environ,
            )
            stack.pop_all()

    def fork(self, variables: Mapping[str, str]) -> _ForkedProcess:
        """A copy of the server that runs a step. Raises `OSError`."""
        with ExitStack() as stack:
            ours: list[int] = []
            theirs: list[int] = []
            for is_input in (True, False, False, False):
                read, write = os.pipe2(os.O_CLOEXEC)
                ours.append(write if is_input else read)
                theirs.append(read if is_input else write)
                stack.callback(os.close, theirs[-1])
            with ExitStack() as on_error:
                for descriptor in ours:
                    on_error.callback(os.close, descriptor)
                socket.send_fds(self._socket, [json.dumps(dict(variables)).encode()], theirs)
                answer, handles, _, _ = socket.recv_fds(self._socket, 64, 1)
                if not handles:
                    raise BrokenPipeError("it has ended")
                on_error.pop_all()
        stdin, stdout, stderr, status = ours
        return _ForkedProcess(
            int(answer),
            handles[0],
            status,
            os.fdopen(stdin, "w", encoding="utf-8", errors="replace"),
            os.fdopen(stdout, encoding="utf-8", errors="replace"),
            os.fdopen(stderr, encoding="utf-8", errors="replace"),
        )

    def kill(self) -> None:
        """Ends the server, and a `fork` that waits for it in another thread."""
        self._process.kill()

    def close(self) -> None:
        """Closes this end of the socket, which ends the server but not its copies."""
        self._socket.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._process.kill()
        self._process.wait()


@dataclass(slots=True, eq=False)
class _ForkedProcess:
    """A copy of the fork server. `handle` is a pidfd: a process id may belong to another process by now."""

    pid: int
    handle: int | None
    status: int
    stdin: IO[str] | None
    stdout: IO[str] | None
    stderr: IO[str] | None
    returncode: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def kill(self) -> None:
        with self.lock, suppress(ProcessLookupError):
            if self.handle is not None:
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def wait(self) -> int | None:
        """The exit status, as from `Popen.wait`; None if the server was killed and the status is unknown. It
        may be called only once.
        """
        code = os.read(self.status, 16)
        self.returncode = int(code) if code else None
        os.close(self.status)
        with self.lock:
            if self.handle is not None:
                os.close(self.handle)
            self.handle = None
        return self.returncode
