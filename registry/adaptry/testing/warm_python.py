"""Python processes for tests that start in 20 ms, where importing adaptry takes over a second.

A separate process has imported adaptry once and forks for each command. The fork becomes a child of the
test's process, like a process of `subprocess.Popen`: it is waited for, signalled and killed in the same ways.
On systems without Linux's subreapers, and for environment variables that Python reads at its start, a plain
process is started instead.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_AT_START = ("HF_", "LD_", "OMP_", "PYTHON", "TOKENIZERS_", "TRANSFORMERS_")
"""Prefixes of variables that Python or a library reads only when it is loaded."""
_SET_CHILD_SUBREAPER = 36  # prctl(2)
_SERVER = "adaptry.testing.warm_python_server"


class WarmPython(subprocess.Popen[Any]):
    """`Popen` for commands of this interpreter: `-m module`, `-c code` or a script, each with arguments.

    (`Any`: text or bytes, as the caller chooses. The standard library lets a subclass replace how the child
    is started, though it does not document this.)
    """

    def _execute_child(self, args: Sequence[object], executable: Any, *rest: Any) -> None:
        words = [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in args]
        preexec, _, pass_fds, cwd, env, _, _, shell, p2cread, p2cwrite, c2pread, c2pwrite, *others = rest
        errread, errwrite, _, _, _, _, _, has_new_session, _ = others
        environ = dict(os.environ if env is None else env)
        if preexec or pass_fds or shell or not _can_fork(words, environ):
            super()._execute_child(args, executable, *rest)  # type: ignore[misc]  # not in typeshed
            return
        request = {
            "words": words[1:],
            "environ": environ,
            "folder": os.fspath(cwd or Path.cwd()),
            "has_new_session": bool(has_new_session),
        }
        given = (p2cread, c2pwrite, errwrite)
        streams = [own if stream == -1 else stream for own, stream in enumerate(given)]
        self.pid = _server().fork(request, streams)
        self._child_created = True
        pipes = (p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]  # not in the stubs


def run_warm(
    command: Sequence[str | os.PathLike[str]],
    *,
    check: bool = False,
    capture_output: bool = False,
    timeout: float | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run` with a `WarmPython`. (`Any`: the options of `Popen`.)"""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with WarmPython(command, **options) as process:
        try:
            out, error = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, error)
    if check:
        done.check_returncode()
    return done


def _can_fork(words: Sequence[str], environ: Mapping[str, str]) -> bool:
    def at_start(variables: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in variables.items() if name.startswith(_AT_START)}

    is_plain = words[0] == sys.executable and (words[1] in ("-c", "-m") or not words[1].startswith("-"))
    return sys.platform == "linux" and is_plain and at_start(environ) == at_start(os.environ)


class _WarmServer:
    """The process that forks."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _SERVER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._socket = ours
        self._lock = threading.Lock()
        self._prctl: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
        atexit.register(self.close)

    def fork(self, request: Mapping[str, object], streams: Sequence[int]) -> int:
        """The id of the new process. The server orphans it and we adopt it. We adopt orphans only during this
        call, so that we get none of other processes.
        """
        with self._lock:
            self._prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], streams)
                answer = self._socket.recv(64)
            finally:
                self._prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        if not answer:
            raise ChildProcessError(f"{_SERVER} ended with {self._process.wait()}")
        return int(answer)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


_servers: dict[int, _WarmServer] = {}


def _server() -> _WarmServer:
    """The server of this process; a fork does not use its parent's."""
    if os.getpid() not in _servers:
        _servers[os.getpid()] = _WarmServer()
    return _servers[os.getpid()]
