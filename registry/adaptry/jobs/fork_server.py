"""`python -m adaptry.jobs.fork_server`: a warm process whose copies run the steps of jobs.

It imports the modules that steps need, and forks for each request on its standard input, a Unix socket: a new
interpreter would need a second for imports that a fork already has, and three with torch (`--torch`). It runs
no step itself and starts no threads, since only such a process can be forked safely (NumPy's BLAS has
threads, and ends them before a fork). It ends with the runner.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from adaptry.compute.tensors.kernel import KernelWeight
from adaptry.jobs.step_launcher import WITH_TORCH
from adaptry.jobs.step_process_main import main as run_step

_MODULES = (
    "adaptry.adapters.layouts.peft",
    "adaptry.checks.base.bound",
    "adaptry.checks.base.identity",
    "adaptry.checks.base.pipelines",
    "adaptry.checks.base.tokenizer",
    "adaptry.checks.other_formats",
    "adaptry.checks.runtimes",
    "adaptry.jobs.derive_jobs",
    "adaptry.jobs.maintenance_jobs",
    "adaptry.jobs.merge_jobs",
    "adaptry.operations.transfer.revision_download",
    "adaptry.operations.transfer.revision_upload",
    "adaptry.storage.blobs.factory",
    "adaptry.storage.catalog.factory",
    "adaptry.storage.catalog.sqlite_engine",
    "adaptry.storage.catalog.statement_compiler",
    "adaptry.storage.local.bases",
    "adaptry.storage.local.revision_admission",
    "adaptry.storage.local.small_files",
    "adaptry.storage.local.versions",
    "platformdirs",
)
_TORCH_MODULES = (
    "torch",
    "adaptry.compute.combining.combine",
    "adaptry.compute.conversion.convert",
    "adaptry.compute.tensors.lowrank",
)
PIPES = 3
"""Descriptors of a request, for the copy: standard input, output and error. A last one is for its status."""
_MAX_REQUEST = 1 << 16


def main() -> None:
    runner = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C; the runner decides when its steps end
    _import_libraries(WITH_TORCH in sys.argv[1:])
    gc.collect()
    gc.freeze()  # otherwise the first collection in each fork would write to, and so copy, every page
    _Server(runner).serve()


def _import_libraries(with_torch: bool) -> None:
    """Does what every step would otherwise do first: imports, SQLAlchemy's inspection of the tables and, if
    the libraries are installed, compiling the loop that merges a LoRA into weights of the usual dtype.
    """
    from sqlalchemy.orm import configure_mappers

    for name in _MODULES:
        importlib.import_module(name)
    configure_mappers()
    if all(importlib.util.find_spec(library) for library in ("llvmlite", "numpy")):
        from adaptry.compute.tensors.llvm_kernel import LlvmKernel

        with suppress(Exception):  # a merge tries again, and reports the problem
            LlvmKernel.prepare(KernelWeight("BF16", "BF16", 1, 1), None)
    if with_torch and importlib.util.find_spec("torch"):  # without it, the step raises `MissingDependency`
        for name in _TORCH_MODULES:
            importlib.import_module(name)


class _Server:
    """Forks on request, and reports how each copy ended. A descriptor of its status pipe is kept for each."""

    def __init__(self, runner: socket.socket) -> None:
        self._runner = runner
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(runner, selectors.EVENT_READ)

    def serve(self) -> None:
        while True:
            for key, _ in self._waiting.select():
                if key.fileobj is not self._runner:
                    self._reap(key)
                elif not self._fork():
                    return

    def _fork(self) -> bool:
        """Handles one request. Returns whether the runner is still there."""
        text, descriptors, _, _ = socket.recv_fds(self._runner, _MAX_REQUEST, PIPES + 1)
        if not text:
            return False
        *pipes, status = descriptors
        pid = os.fork()
        if pid == 0:
            _run_step(json.loads(text), pipes)
        for descriptor in pipes:
            os.close(descriptor)
        handle = os.pidfd_open(pid)
        self._waiting.register(handle, selectors.EVENT_READ, (pid, status))
        socket.send_fds(self._runner, [str(pid).encode()], [handle])
        return True

    def _reap(self, key: selectors.SelectorKey) -> None:
        pid, status = key.data
        self._waiting.unregister(key.fileobj)
        os.close(key.fd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(status, str(code).encode())
        os.close(status)


def _run_step(variables: dict[str, str], pipes: Sequence[int]) -> NoReturn:
    """Runs the step in this copy, which shares nothing with the server but its memory."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, descriptor in enumerate(pipes):
            os.dup2(descriptor, number)
        _close_all_but(PIPES)
        os.environ.update(variables)
        tempfile.tempdir = None  # computed again from the environment variables
        run_step()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(1)  # nothing may return into the server's loop


def _close_all_but(first: int) -> None:
    """Closes every descriptor from `first` on. They are listed first: trying all up to a limit of a billion
    would take minutes.
    """
    for descriptor in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
        if descriptor >= first:
            with suppress(OSError):  # the directory's own descriptor
                os.close(descriptor)


if __name__ == "__main__":
    main()
