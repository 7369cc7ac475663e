"""llama.cpp's server as a process, and the command with which an operator would restart it.

llama_server.py serve MODEL PORT SLOTS [FILE…]      serves until it is killed, SLOTS requests at once
llama_server.py restart MODEL PORT PIDFILE [SLOTS]  kills the previous one, starts one with the listed files

`ADAPTRY_ADAPTERS` names the list of adapter files that `adaptry follow --restart` writes. The server is that
of the package xllamacpp; the same command with your own `llama-server` is `llama-server --lora FILE…`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path


def serve(model: str, port: int, slots: int, files: list[str]) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel = 2048 * slots, slots
    params.port, params.n_gpu_layers = port, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup, params.verbosity = False, -1
    params.cache_type_k = params.cache_type_v = (
        xllamacpp.ggml_type.GGML_TYPE_F32
    )  # its default rounds to half
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(file, 1.0) for file in files]
    server = xllamacpp.Server(params)
    threading.Event().wait()
    del server


def restart(model: str, port: str, pidfile: Path, slots: str = "1") -> None:
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int(pidfile.read_text()), signal.SIGKILL)
    listed = os.environ.get("ADAPTRY_ADAPTERS")
    files = Path(listed).read_text().split() if listed and Path(listed).exists() else []
    process = subprocess.Popen(
        [sys.executable, __file__, "serve", model, port, slots, *files],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    pidfile.write_text(str(process.pid))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", model, port, slots, *files]:
            serve(model, int(port), int(slots), files)
        case ["restart", model, port, pidfile, *slots]:
            restart(model, port, Path(pidfile), *slots)
