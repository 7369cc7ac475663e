"""The server's side of the computing process, which is started when needed, restarted after a crash, and
stopped with the server.

Nothing here imports computing modules. Bytes are passed on as they arrive; if a reader disconnects, the
computation stops. If the process dies, a stream continues at the same position, since the same model has the
same bytes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from adaptry.compute.sidecar_client import frames
from adaptry.compute.sidecar_client.inputs import ComputeRequest, ModelDescription, ModelInputs
from adaptry.core.errors import Unavailable

STREAMS = 32
_TIMEOUT = 600.0  # seconds to wait for the next chunk; computing a large tensor as a whole takes long
_MAX_DEATHS = 3  # consecutive crashes without any bytes received, after which the client gives up
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")
_PREFIXES = ("OMP_", "MKL_", "OPENBLAS_", "COVERAGE_")


class ComputeClient:
    """Safe for many threads.

    `folder`: the work folder of the process, in which up to `cache` bytes of finished files are kept. At most
    `streams` files are read at once; further reads raise `Unavailable`.
    """

    def __init__(self, folder: Path, cache: int = 0, streams: int = STREAMS) -> None:
        self._folder = folder
        self._cache = cache
        self._streams = threading.BoundedSemaphore(streams)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """The process id; None if no process was started."""
        return self._process.pid if self._process else None

    def describe(self, inputs: ModelInputs) -> ModelDescription:
        """The merged model's description. Raises the errors of opening it (`CheckFailed`, `Unsupported`,
        `NotFound` …), and `Unavailable`."""
        for _ in range(_MAX_DEATHS):
            try:
                response = b"".join(self._request(ComputeRequest(inputs=inputs)))
            except frames.ChannelClosed:
                continue
            return ModelDescription.model_validate_json(response)
        raise _died()

    def read(
        self, inputs: ModelInputs, model: ModelDescription, file: str, start: int, end: int
    ) -> Iterator[bytes]:
        """The bytes [start, end) of a file of `model`, in order.

        Close the iterator to stop early. Raises `Conflict` if the inputs now give a different model, and
        `Unavailable`, `InvalidWeights` or `StorageFull`.
        """
        if not self._streams.acquire(blocking=False):
            raise Unavailable("the server is already computing its maximum number of merged files; try again")
        deaths = 0
        try:
            while deaths < _MAX_DEATHS:
                request = ComputeRequest(
                    inputs=inputs, file=file, identity=model.identity, start=start, end=end
                )
                try:
                    for piece in self._request(request):
                        start += len(piece)
                        deaths = 0
                        yield piece
                except frames.ChannelClosed:
                    deaths += 1
                else:
                    return
            raise _died()
        finally:
            self._streams.release()

    def close(self) -> None:
        """Stops the process; open requests fail."""
        with self._lock:
            self._is_closed = True
            self._end()

    def _request(self, request: ComputeRequest) -> Iterator[bytes]:
        """The data of a response. Raises `ChannelClosed` if the process died before its end, and the error
        that the response contains."""
        channel, process = self._channel()
        try:
            with channel:
                channel.settimeout(_TIMEOUT)
                frames.send(channel, "request", request.model_dump_json().encode())
                while True:
                    kind, payload = frames.receive(channel)
                    if kind == "end":
                        return
                    if kind == "error":
                        raise frames.error_of(payload)
                    yield payload
        except frames.ChannelClosed:
            self._discard_process(process)
            raise

    def _channel(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        """The server's end of a new socket pair; the process gets the other end."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            control, process = self._ensure_process()
            # If the process is dying, writing fails, and reading the response raises an error.
            with contextlib.suppress(OSError):
                socket.send_fds(control, [b"?"], [theirs.fileno()])
        return ours, process

    def _discard_process(self, process: subprocess.Popen[bytes]) -> None:
        """Drops the process, so that the next request starts a new one."""
        with self._lock:
            if self._process is process:
                self._end()

    def _ensure_process(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        if self._is_closed:
            raise Unavailable("the server is stopping")
        if self._process is None or self._control is None:
            self._control, theirs = socket.socketpair()
            with theirs:
                self._process = self._start_process(theirs)
        return self._control, self._process

    def _start_process(self, control: socket.socket) -> subprocess.Popen[bytes]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", "adaptry.compute.merging.streaming"]
        command += [
            "--control",
            str(control.fileno()),
            "--folder",
            str(self._folder),
            "--cache",
            str(self._cache),
        ]
        try:
            return subprocess.Popen(
                command,
                pass_fds=[control.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environment(os.environ),
            )
        except OSError as error:
            raise Unavailable(f"cannot start the process that computes merged models: {error}") from error

    def _end(self) -> None:
        """Kills the process; the caller holds the lock. The process has nothing to save."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._control = self._process = None


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment of the process: variables that locate installed libraries, and no secrets."""
    return {name: value for name, value in own.items() if name in _PASSED_ON or name.startswith(_PREFIXES)}


def _died() -> Unavailable:
    return Unavailable(
        "the process that computes merged models crashed several times on this request; see the server log."
        " Merge with `adaptry merge` and upload the result, or try again"
    )
