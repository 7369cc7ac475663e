"""The process that measures weights: reads requests from the socket on standard input, until that closes.

Requests and answers are those of `protocol`. Each request resets the timer that ends the process.

The process stays for the next request, since starting one costs more than measuring a small adapter. It ends
when its input closes (because the process that started it has ended) or after `IDLE` seconds without a
request.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import select
import signal
import socket
import sys
from typing import Any

from adaptry.adapters.inspection import plain_norms
from adaptry.adapters.inspection.numpy_core import use_compiled_numpy
from adaptry.adapters.inspection.protocol import IDLE, SHORT
from adaptry.adapters.inspection.tensor_measurement import Measure, ShortFile, Source, measure_tensor

_READ_AHEAD = 1 << 20


def serve(requests: socket.socket, target: io.BufferedWriter, numpy: str = "") -> None:
    """Answers requests until the socket closes. `numpy` is the folder of numpy if it should be imported
    first; if empty, numpy is imported only when a request needs it.
    """
    stream = io.BufferedReader(socket.SocketIO(requests, "r"), _READ_AHEAD)
    measure = _with_numpy(numpy) if numpy else None
    while select.select([requests], [], [], IDLE)[0]:
        head, files = _receive_head(requests)
        if len(head) < 4:
            return
        request: dict[str, Any] = json.loads(stream.read(int.from_bytes(head, "big")))  # `Any`: our parent's
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        if measure is None and request["numpy"]:
            measure = _with_numpy(request["numpy"])
        source: Source = _OpenFile(files[0], request["start"], requests) if files else stream
        numbers = measure or plain_norms.measure
        answers = [measure_tensor(source, dtype, size, numbers) for dtype, size in request["tensors"]]
        for file in files:
            os.close(file)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answer = json.dumps(answers).encode()
        target.write(len(answer).to_bytes(4, "big") + answer)
        target.flush()


def _receive_head(requests: socket.socket) -> tuple[bytes, list[int]]:
    """The four bytes of a length, fewer at the end, and the file that was sent with it, if any."""
    head, files = b"", []
    while len(head) < 4:
        piece, more, _, _ = socket.recv_fds(requests, 4 - len(head), 1)
        if not piece:
            break
        head += piece
        files += more
    return head, files


class _OpenFile:
    """A file that is read by position, since other processes share the descriptor. It ends with the
    socket.

    Reads are unbuffered, since a buffer would copy every byte a second time.
    """

    def __init__(self, file: int, start: int, requests: socket.socket) -> None:
        self._file = file
        self._position = start
        self._requests = requests

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer at the end."""
        if select.select([self._requests], [], [], 0)[0]:
            return b""  # a caller sends nothing before it gets the answer, so it must be gone
        data = os.pread(self._file, size, self._position)
        self._position += len(data)
        return data


def _with_numpy(folder: str) -> Measure:
    sys.path.append(folder)
    use_compiled_numpy(folder)
    try:
        measure: Measure = importlib.import_module("adaptry.adapters.inspection.numpy_norms").measure
    except ImportError:
        return plain_norms.measure  # numpy is installed but broken; the slower way gives the same result
    return measure


if __name__ == "__main__":
    with socket.socket(fileno=0) as standard_input, open(1, "wb") as standard_output:
        try:
            serve(standard_input, standard_output, *sys.argv[1:2])
        except ShortFile:
            sys.exit(SHORT)
