"""Processes of real proxies for tests: a line of the log shows that they have started, and they are stopped
at the end.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def running_gateway(command: Sequence[str], port: int, ready: str) -> Iterator[str]:
    """The address of the proxy, once its log on standard error has the text `ready`. Raises `RuntimeError`
    with its last lines if it ends before.
    """
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    with process, process.stderr as log:
        try:
            lines = []
            for line in log:
                lines.append(line)
                if ready in line:
                    break
            else:
                raise RuntimeError("".join(lines[-20:]))
            drain = threading.Thread(target=log.read)
            drain.start()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)
        drain.join()
