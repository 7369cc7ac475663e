"""Measures how long `adaptry ls`, `push` and `pull` take on a registry in a folder, as whole processes.

    python bench/commands.py [--adapters 200000] [--size-mb 10] [--rounds 7] [--folder DIR]

`ls` lists a registry of `--adapters` adapters (`bench/filled.py`) with one version each, compared with a
Python that does nothing. `push` stores an adapter of random weights, compared with hashing, copying and
flushing the same file in one process. `pull` writes a small adapter, so that its start dominates; it is
compared with the same Python. They run in turns. Shown are the median, minimum and maximum of the rounds,
and the processor time, because the machine may be busy.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from figures import note
from filled import fill
from transfer import WEIGHTS, hash_copy_flush, large_lora

from adaptry.testing.samples import tiny_lora

COMMAND = (sys.executable, "-m", "adaptry_cli")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapters", type=int, default=200_000)
    parser.add_argument("--size-mb", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        measure(Path(folder), asked.adapters, asked.size_mb << 20, asked.rounds)


def measure(folder: Path, adapters: int, size: int, rounds: int) -> None:
    (folder / "full").mkdir()
    fill(f"sqlite:///{folder / 'full' / 'catalog.sqlite'}", adapters, versions_per_adapter=1)
    small = tiny_lora(folder / "small")
    large = [large_lora(folder / f"large-{number}", size, seed=number) for number in range(rounds + 1)]
    adaptry("push", small, "acme/small", "--registry", folder / "data")
    works: Mapping[str, Callable[[int], object]] = {
        "python -c pass": lambda number: run(sys.executable, "-c", "pass"),
        f"ls of {adapters:,} adapters": lambda number: adaptry("ls", "--registry", folder / "full"),
        "pull of a small adapter": lambda number: adaptry(
            "pull", "acme/small", "--to", folder / f"pulled-{number}", "--registry", folder / "data"
        ),
        "sha256sum, cp and fsync": lambda number: hash_copy_flush(
            large[number] / WEIGHTS, folder / f"copy-{number}"
        ),
        f"push of {size >> 20} MB": lambda number: adaptry(
            "push", large[number], "acme/large", "--registry", folder / "data"
        ),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            found_now = timed(work, number)
            if number:  # the first round warms up
                taken[name].append(found_now)
    for name, found in taken.items():
        walls, busy = ([one[which] * 1e3 for one in found] for which in (0, 1))
        print(
            f"{name:<28}{median(walls):8.0f} ms ({min(walls):.0f} to {max(walls):.0f}),"
            f" {median(busy):6.0f} ms of processor ({min(busy):.0f} to {max(busy):.0f})"
        )
    python, ls, pull, copy, push = ([wall for wall, _ in found] for found in taken.values())
    note("ls", ls, python)
    note("pull-start", pull, python)
    note("push-command", push, copy)


def timed(work: Callable[[int], object], number: int) -> tuple[float, float]:
    """Seconds on the clock, and of the processor."""
    os.sync()
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    work(number)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def adaptry(*words: str | Path) -> None:
    run(*COMMAND, *words)


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
