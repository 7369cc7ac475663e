"""Compares push and pull with the limits of the machine.

    python bench/transfer.py [--size-mb 200] [--rounds 3] [--folder DIR]

A generated adapter, another one in each round, is pushed over loopback HTTP through the real server (a
separate process) and client, and into an embedded registry, compared with hashing, copying and flushing the
same file. The first one is pulled, compared with `sha256sum` of the same bytes and `curl` from the same
server. They take turns, and the medians count; files are in the page cache; everything is verified.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from figures import note
from served import served

from adaptry.adapters.adapter import open_dir
from adaptry.operations.transfer import pull, push
from adaptry.registry.http import HttpRegistry
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_lora, write_safetensors

HIDDEN = 1 << 14
RANK = 256  # about
WEIGHTS = "adapter_model.safetensors"
PULL = "pull over HTTP, verified and flushed"
PEERS = {
    "push, embedded": "sha256sum, cp and fsync",
    "push over HTTP": "sha256sum, cp and fsync",
    PULL: "curl, sha256sum and fsync",
}
ROWS = {"push-embedded": "push, embedded", "push-http": "push over HTTP"}
_FINITE = bytes(byte & 0xBF for byte in range(256))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--size-mb", type=int, default=200)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(Path(folder), options.size_mb << 20, options.rounds)


def measure(folder: Path, size: int, rounds: int) -> None:
    sources = [large_lora(folder / f"adapter-{number}", size, seed=number) for number in range(rounds + 1)]
    first, files = sources.pop(), [source / WEIGHTS for source in sources]
    size = files[0].stat().st_size
    with served(folder / "served") as server:
        registry = server.registry
        push(registry, open_dir(first), "acme/tone-first")
        curl = ["curl", "--silent", "--fail", "--header", f"Authorization: Bearer {server.token}"]
        curl += [file_url(registry), "--output"]
        taken = in_turns(
            rounds,
            {
                "sha256sum": lambda number: run("sha256sum", files[number]),
                "sha256sum, cp and fsync": lambda number: hash_copy_flush(
                    files[number], folder / f"copy-{number}"
                ),
                "push, embedded": lambda number: push(
                    open_local(folder / f"local-{number}"), open_dir(sources[number]), "acme/tone"
                ),
                "push over HTTP": lambda number: push(
                    registry, open_dir(sources[number]), f"acme/tone-{number}"
                ),
                "curl, thrown away": lambda number: run(*curl, os.devnull),
                "curl to a file": lambda number: run(*curl, folder / f"curled-{number}"),
                "curl, sha256sum and fsync": lambda number: curl_hash_flush(
                    curl, folder / f"checked-{number}"
                ),
                PULL: lambda number: pull(registry, "acme/tone-first", folder / f"pulled-{number}"),
            },
        )
    print(f"{size / 1e6:,.0f} MB, {rounds} rounds, GB/s")
    for name, seconds in taken.items():
        peer = PEERS.get(name)
        ratios = [one / other for one, other in zip(seconds, taken[peer], strict=True)] if peer else []
        beside = f"{median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f}) {peer}" if ratios else ""
        print(f"  {name:<40}{size / 1e9 / median(seconds):6.2f}   {beside}")
    for row, name in ROWS.items():
        note(row, taken[name], taken[PEERS[name]])
    pulled, curled = ([size / 1e9 / seconds for seconds in taken[name]] for name in (PULL, PEERS[PULL]))
    note("pull", pulled, curled)


def in_turns(rounds: int, works: Mapping[str, Callable[[int], object]]) -> dict[str, list[float]]:
    """The seconds of each in every round, in which they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name, work in works.items():
            os.sync()  # so that none pays for unwritten data of another
            began = time.perf_counter()
            work(number)
            taken[name].append(time.perf_counter() - began)
    return taken


def best(rounds: int, action: Callable[[int], object]) -> float:
    """The shortest of the times that `action(round)` takes, in seconds."""
    return min(in_turns(rounds, {"": action})[""])


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
    version = registry.versions.search("name:acme/tone-first").items[0]
    return f"{registry.url}/api/v1/adapters/{version.name}/revisions/{version.digest}/files/{WEIGHTS}"


def large_lora(folder: Path, size: int, seed: int = 0) -> Path:
    """A LoRA of about `size` bytes that the checks admit: one pair of matrices per layer."""
    layers = max(1, round(size / (2 * HIDDEN * RANK * 2)))
    rank = max(1, round(size / (2 * HIDDEN * layers * 2)))
    tiny_lora(folder, layers=1, rank=rank, targets=("q_proj",), hidden=2)
    noise = random.Random(seed)
    tensors = {}
    for layer in range(layers):
        key = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        # Random bits with the exponent's top bit cleared: finite values of bfloat16.
        for part, shape in (("lora_A", (rank, HIDDEN)), ("lora_B", (HIDDEN, rank))):
            data = bytearray(noise.randbytes(2 * rank * HIDDEN))
            data[1::2] = data[1::2].translate(_FINITE)
            tensors[f"{key}.{part}.weight"] = ("BF16", shape, bytes(data))
    write_safetensors(folder / WEIGHTS, dict(sorted(tensors.items())), {"format": "pt"})
    return folder


if __name__ == "__main__":
    main()
