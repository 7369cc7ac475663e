"""Compares `hf upload` of one large adapter with the client's own work.

    python bench/hub_upload.py [--size-mb 200] [--rounds 3] [--ways xet,lfs] [--folder DIR]

The same client uploads to `adaptry serve`, and to a server that answers the same requests and discards the
bytes (`hub_null.py`), by Xet and by Git LFS, in turns. Shown are the medians of the elapsed time, and of the
processor time of the client and of each server with its children. Every upload has different bytes.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from figures import note
from hub import CLIENT, Place
from served import served
from transfer import large_lora

WAYS = {"xet": {}, "lfs": {"HF_HUB_DISABLE_XET": "1"}}
TICKS = os.sysconf("SC_CLK_TCK")


class Taken(NamedTuple):
    """Seconds that an upload took, and processor seconds of the client and of the server."""

    wall: float
    client: float
    server: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size-mb", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=asked.folder) as folder,
        served(Path(folder) / "data") as ours,
        null_server() as (null, null_process),
    ):
        places = (
            (Place(null, ours.token, Path(folder)), null_process),
            (Place(ours.url, ours.token, Path(folder)), ours.process),
        )
        for way in asked.ways.split(","):
            measure(Path(folder), way, WAYS[way], places, asked.size_mb << 20, asked.rounds)


def measure(
    folder: Path,
    way: str,
    settings: dict[str, str],
    places: Sequence[tuple[Place, int]],
    size: int,
    rounds: int,
) -> None:
    taken: list[list[Taken]] = [[], []]
    for number in range(rounds):
        adapter = large_lora(folder / f"{way}-{number}", size, seed=2 * number + (way == "xet"))
        for found, (place, process) in zip(taken, places, strict=True):
            os.sync()
            found.append(upload(place, process, adapter, f"acme/{way}-{number}", settings))
    theirs, ours = taken
    ratio = median(one.wall / other.wall for one, other in zip(ours, theirs, strict=True))
    for name, found in (("thrown away", theirs), ("to adaptry", ours)):
        wall, client, server = (median(values) for values in zip(*found, strict=True))
        print(f"  hf upload by {way}, {name:<12}{wall:7.2f} s", end="")
        print(f"   processor: {client:.2f} client, {server:.2f} server")
    print(f"  {ratio:.2f} x the client's own work")
    note(f"hub-upload-{way}", [one.wall for one in ours], [one.wall for one in theirs])


def upload(place: Place, process: int, adapter: Path, name: str, settings: dict[str, str]) -> Taken:
    client, server, began = children(), used(process), time.perf_counter()
    place.run(CLIENT, "upload", name, adapter, **settings)
    wall = time.perf_counter() - began
    return Taken(wall, children() - client, used(process) - server)


def children() -> float:
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def used(process: int) -> float:
    """The processor time of a process and of its children, in seconds."""
    processes = [process, *map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())]
    fields = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in processes]
    return sum(int(field) for found in fields for field in found[11:13]) / TICKS


@contextmanager
def null_server() -> Iterator[tuple[str, int]]:
    """Its address and its process."""
    command = [sys.executable, str(Path(__file__).with_name("hub_null.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
