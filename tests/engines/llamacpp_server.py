"""llama.cpp's server as a process, and what an operator would run to start it anew.

llamacpp_server.py serve MODEL PORT [FILE…]      serves until it is killed
llamacpp_server.py restart MODEL PORT PIDFILE    kills the one before and starts another with the listed files
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path


def serve(model: str, port: int, files: list[str]) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel, params.port, params.n_gpu_layers = 128, 1, port, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup, params.verbosity = False, -1
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(file, 1.0) for file in files]
    server = xllamacpp.Server(params)
    threading.Event().wait()
    del server


def restart(model: str, port: str, pidfile: Path) -> None:
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int(pidfile.read_text()), signal.SIGKILL)
    listed = os.environ.get("ADAPTRY_ADAPTERS")
    files = Path(listed).read_text().split() if listed and Path(listed).exists() else []
    process = subprocess.Popen(
        [sys.executable, __file__, "serve", model, port, *files],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    pidfile.write_text(str(process.pid))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", model, port, *files]:
            serve(model, int(port), files)
        case ["restart", model, port, pidfile]:
            restart(model, port, Path(pidfile))
