"""Compares push and pull with the limits of the machine.

    python bench/transfer.py [--size-mb 200] [--rounds 3] [--folder DIR]

One generated adapter is pushed and pulled over loopback HTTP through the real server (a process of its own)
and client, beside `sha256sum` of the same bytes and `curl` from the same server; then pushed into an embedded
registry, beside hashing, copying and flushing the same file. The best of the rounds counts; files are in the
page cache; everything is verified.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from served import served

from adaptry.adapters.adapter import open_dir
from adaptry.operations.transfer import pull, push
from adaptry.registry.http import HttpRegistry
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_lora, write_safetensors

HIDDEN = 1 << 14
RANK = 256
WEIGHTS = "adapter_model.safetensors"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--size-mb", type=int, default=200)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(Path(folder), options.size_mb << 20, options.rounds)


def measure(folder: Path, size: int, rounds: int) -> None:
    source = large_lora(folder / "adapter", size)
    file = source / WEIGHTS
    size = file.stat().st_size
    print(f"{size / 1e6:,.0f} MB, best of {rounds}, GB/s")
    hashing = show("sha256sum", size, best(rounds, lambda number: run("sha256sum", file)))
    local = best(rounds, lambda number: hash_copy_flush(file, folder / f"copy-{number}"))
    show("sha256sum, cp and fsync", size, local)
    embedded = best(
        rounds, lambda number: push(open_local(folder / f"local-{number}"), open_dir(source), "acme/tone")
    )
    show("push, embedded", size, embedded, f"{embedded / local:.2f} x the time of sha256sum, cp and fsync")
    with served(folder / "served") as server:
        registry = server.registry
        pushed = best(rounds, lambda number: push(registry, open_dir(source), f"acme/tone-{number}"))
        show("push over HTTP", size, pushed, f"{pushed / hashing:.2f} x the time of sha256sum")
        url = file_url(registry)
        curl = [
            "curl",
            "--silent",
            "--fail",
            "--header",
            f"Authorization: Bearer {server.token}",
            url,
            "--output",
        ]
        show("curl, thrown away", size, best(rounds, lambda number: run(*curl, os.devnull)))
        to_file = best(rounds, lambda number: run(*curl, folder / f"curled-{number}"))
        show("curl to a file", size, to_file)
        same = best(rounds, lambda number: curl_hash_flush(curl, folder / f"checked-{number}"))
        show("curl, sha256sum and fsync", size, same)
        pulled = best(rounds, lambda number: pull(registry, "acme/tone-0", folder / f"pulled-{number}"))
        show(
            "pull over HTTP, verified and flushed",
            size,
            pulled,
            f"{to_file / pulled:.2f} x curl's speed to a file, {same / pulled:.2f} x with sha256sum and"
            " fsync",
        )


def best(rounds: int, action: Callable[[int], object]) -> float:
    """The shortest of the times that `action(round)` takes, in seconds."""
    times = []
    for number in range(rounds):
        os.sync()  # no round pays for unflushed writes of an earlier one
        began = time.perf_counter()
        action(number)
        times.append(time.perf_counter() - began)
    return min(times)


def show(what: str, size: int, seconds: float, ratio: str = "") -> float:
    print(f"  {what:<40}{size / 1e9 / seconds:6.2f}   {ratio}")
    return seconds


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def hash_copy_flush(file: Path, copy: Path) -> None:
    run("sha256sum", file)
    shutil.copyfile(file, copy)
    flush(copy)


def curl_hash_flush(curl: list[str], copy: Path) -> None:
    run(*curl, copy)
    run("sha256sum", copy)
    flush(copy)


def flush(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())


def file_url(registry: HttpRegistry) -> str:
    version = registry.versions.search("name:acme/tone-0").items[0]
    return f"{registry.url}/api/v1/adapters/{version.name}/revisions/{version.digest}/files/{WEIGHTS}"


def large_lora(folder: Path, size: int) -> Path:
    """A LoRA of about `size` bytes that the checks admit: one pair of matrices a layer."""
    layers = max(1, round(size / (2 * HIDDEN * RANK * 2)))
    tiny_lora(folder, layers=1, rank=RANK, targets=("q_proj",), hidden=2)
    noise = random.Random(0)
    tensors = {}
    for layer in range(layers):
        key = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        # Random bits with the exponent's top bit cleared: finite values of bfloat16.
        for part, shape in (("lora_A", (RANK, HIDDEN)), ("lora_B", (HIDDEN, RANK))):
            data = bytearray(noise.randbytes(2 * RANK * HIDDEN))
            data[1::2] = bytes(byte & 0xBF for byte in data[1::2])
            tensors[f"{key}.{part}.weight"] = ("BF16", shape, bytes(data))
    write_safetensors(folder / WEIGHTS, dict(sorted(tensors.items())), {"format": "pt"})
    return folder


if __name__ == "__main__":
    main()
