"""Measures the time and memory of operations on a large adapter and a large base.

    python bench/large.py [--adapter-mb 1024] [--layers 310] [--full] [--only adapter,base] [--folder DIR]

The commands push and pull the adapter, with a registry in a folder and over HTTP, and do the same with one of
a fifth of its size, so that the time per GB can be compared. The base is a model with `--layers` layers in
sparse files (310 layers are 31 GB). It is registered, and a merge of a LoRA on all its layers is planned;
`--full` also reads all its weights. Memory is the peak of a process (VmHWM), in MiB, without its children.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from generated import generated
from merge import OURS, QUIET
from served import served
from transfer import large_lora


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapter-mb", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=310)
    parser.add_argument("--full", action="store_true", help="also read all weights of the base")
    parser.add_argument("--only", default="adapter,base", help="which parts, with commas between")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}", flush=True)
    print(f"{'':<48}{'s':>8}{'s a GB':>8}{'CPU s':>8}{'MiB':>7}")
    parts = asked.only.split(",")
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        if "adapter" in parts:
            for size in (asked.adapter_mb // 5, asked.adapter_mb):
                adapter(Path(folder) / str(size), size << 20)
        if "base" in parts:
            base(Path(folder), asked.layers, is_full=asked.full)


def adapter(folder: Path, size: int) -> None:
    source = large_lora(folder / "adapter", size)
    size = (source / "adapter_model.safetensors").stat().st_size
    what = f"{size / 1e6:,.0f} MB"
    data = str(folder / "data")
    command(f"push of {what}, embedded", size, "push", str(source), "acme/large", "--registry", data)
    pulled = ("pull", "acme/large", "--to", str(folder / "pulled"), "--registry", data)
    command(f"pull of {what}, embedded", size, *pulled)
    with served(folder / "served") as server:
        remote = ("--registry", server.url)
        token = {"ADAPTRY_TOKEN": server.token}
        command(f"push of {what} over HTTP", size, "push", str(source), "acme/large", *remote, **token)
        pulled = ("pull", "acme/large", "--to", str(folder / "pulled-too"))
        command(f"pull of {what} over HTTP", size, *pulled, *remote, **token)
        print(f"{'  the server':<48}{'':>24}{peak(server.process):>7.0f}")
    shutil.rmtree(folder)


def base(folder: Path, layers: int, *, is_full: bool) -> None:
    made = generated(folder, layers, is_sparse=True)
    size = sum(path.stat().st_size for path in made.base.glob("*.safetensors"))
    what, data = f"{size / 1e9:,.0f} GB", ("--registry", str(folder / "data"))
    add = ("base", "add", str(made.base), "--name", "org/large", *data)
    command(f"base add, {what}", size, *add)
    command(f"base match, {what}", size, "base", "match", str(made.base), *data)
    merge = ("merge", "--base", str(made.base), str(made.adapter), "-o", str(folder / "merged"))
    command(f"merge --dry-run, {what}", size, *merge, "--dry-run")
    if is_full:
        command(f"base add --full, {what}", size, *add, "--full")


def command(what: str, size: int, *words: str, **settings: str) -> None:
    """Runs a command of ours, and shows its time and memory."""
    reading, writing = os.pipe()
    environment = {**os.environ, **QUIET, **settings, "REPORT_TO": str(writing)}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", OURS, *words],
        env=environment,
        pass_fds=[writing],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    errors = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    os.close(writing)
    memory = int(os.read(reading, 64) or 0) / 1024
    os.close(reading)
    if process.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{errors}")
    cpu = used.ru_utime + used.ru_stime
    print(f"{what:<48}{seconds:8.2f}{seconds / size * 1e9:8.2f}{cpu:8.2f}{memory:7.0f}", flush=True)


def peak(process: int) -> float:
    """The peak memory of a process, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


if __name__ == "__main__":
    main()
