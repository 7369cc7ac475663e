"""Measures how fast a server serves a merged model that is not stored, compared with merging it to disk.

    python bench/merged.py [--folder .bench] [--layers 12] [--rounds 3]

The generated base and adapter are registered with a server (a separate process), and the merged model's
weights are read over loopback HTTP by one reader and by two, which discard them: the first time, when the
server hashes them as they pass, and again. This is compared with `adaptry merge` of the same inputs, and with
reading as many stored bytes from the server. Bytes are compared with the merge's, memory is the VmHWM of the
processes. Needs three times the base on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import urllib3
from generated import Generated, asked_of, generated
from served import Served, served

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.manifest import BaseClaim
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push


def main() -> None:
    asked = asked_of(__doc__)
    made = generated(asked.folder, asked.layers)
    with tempfile.TemporaryDirectory(dir=asked.folder) as scratch:
        measure(made, Path(scratch), asked.rounds)


def measure(made: Generated, scratch: Path, rounds: int) -> None:
    seconds, files = merged_to_disk(made, scratch / "merged", rounds)
    size = sum(size for size, _ in files.values())
    print(
        f"{size / 1e9:.2f} GB, {rounds} rounds (the median), {os.cpu_count()} cores, load"
        f" {os.getloadavg()[0]:.1f}"
    )
    show("adaptry merge", size, seconds, seconds)
    with served(scratch / "data") as server:
        registry, reader = server.registry, Reader(server)
        register_base(registry, open_checkpoint(made.base), ("org/base",), store=True)
        push(registry, open_dir(made.adapter), "acme/tone", base=BaseClaim(name="org/base"))
        began = time.perf_counter()
        reader.info("acme/tone.merged")
        print(
            f"  known after {time.perf_counter() - began:.2f} s: process started, plan made, headers laid out"
        )
        began = time.perf_counter()
        for name, (_, sha256) in files.items():
            if reader.sha256("acme/tone.merged", name) != sha256:
                sys.exit(f"{name} is not the file that the merge wrote")
        print(
            f"  the bytes are those of the merge on disk ({time.perf_counter() - began:.1f} s, hashed at both"
            " ends)"
        )
        one = timed(rounds, lambda: [reader.drain("acme/tone.merged", name) for name in files])
        show("merged, one reader", size, one, seconds)
        with ThreadPoolExecutor(2) as two:
            both = timed(
                rounds, lambda: list(two.map(lambda name: reader.drain("acme/tone.merged", name), files))
            )
            show("merged, two readers", size, both, seconds)
        stored = timed(rounds, lambda: [reader.drain("org/base", name) for name in files])
        show("stored base, one reader", size, stored, seconds)
        for what, pid in (("server", server.process), ("process that computes", child_of(server.process))):
            print(f"  peak memory of the {what}: {peak(pid):.0f} MiB")


class Reader:
    """Reads from the server, and discards the bytes."""

    def __init__(self, server: Served) -> None:
        self._url, self._bearer = server.url, {"Authorization": f"Bearer {server.token}"}
        self._pool = urllib3.PoolManager(maxsize=2)

    def info(self, model: str) -> object:
        return json.loads(b"".join(self._get(f"/api/models/{model}")))

    def drain(self, model: str, name: str) -> None:
        for _ in self._get(f"/{model}/resolve/main/{name}"):
            pass

    def sha256(self, model: str, name: str) -> str:
        hasher = hashlib.sha256()
        for data in self._get(f"/{model}/resolve/main/{name}"):
            hasher.update(data)
        return hasher.hexdigest()

    def _get(self, path: str) -> Iterator[bytes]:
        response = self._pool.request("GET", self._url + path, headers=self._bearer, preload_content=False)
        if response.status != 200:
            sys.exit(f"{path}: {response.status} {response.data[:500]!r}")
        yield from response.stream(1 << 20)
        response.release_conn()


def merged_to_disk(made: Generated, target: Path, rounds: int) -> tuple[float, dict[str, tuple[int, str]]]:
    """Merges to disk; returns the seconds, and the size and SHA-256 of every weights file."""
    spent: list[float] = []
    for number in range(rounds):
        place = target.with_name(f"{target.name}-{number}")
        words = [
            "-m",
            "adaptry_cli",
            "merge",
            "--base",
            made.base.absolute(),
            made.adapter.absolute(),
            "-o",
            place,
        ]
        began = time.perf_counter()
        subprocess.run([sys.executable, *map(str, words)], check=True, capture_output=True)
        spent.append(time.perf_counter() - began)
        record = json.loads((place / "adaptry_merge.json").read_text())
        subprocess.run(["rm", "-r", place], check=True)
    files = {
        entry["path"]: (entry["size"], entry["sha256"].removeprefix("sha256:")) for entry in record["files"]
    }
    return median(spent), files


def timed(rounds: int, act: Callable[[], object]) -> float:
    spent = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        spent.append(time.perf_counter() - began)
    return median(spent)


def show(what: str, size: int, seconds: float, beside: float) -> None:
    print(
        f"  {what:<28}{size / seconds / 1e9:6.2f} GB/s  {seconds / beside:5.2f} times the merge", flush=True
    )


def child_of(pid: int) -> int:
    children = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return int(children.split()[0])


def peak(pid: int) -> float:
    """The peak memory in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


if __name__ == "__main__":
    main()
