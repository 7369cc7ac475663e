"""What combining adapters costs, beside PEFT and beside the memory and files it must touch, in one run.

    python bench/combine.py [--folder .bench] [--rounds 3] [--small] [--only peft,svd,files]

*peft*: every combination of PEFT's `add_weighted_adapter` on 2, 4 and 8 adapters of a 768-wide model, and ours of the same
name, each in a process of its own; the factors must be the same, bit for bit. PEFT's time is that of the one call on
adapters it has loaded; ours reads the files, combines and writes the result.
*svd*: the same for modules of 4096×4096, where PEFT decomposes densely.
*files*: stack, resize and extract beside the copying of the bytes that they read and write.
Memory is a process's VmHWM.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from combined import METHODS, make_adapters, same_factors
from generated import generated

COUNTS = (2, 4, 8)
WORKER = Path(__file__).with_name("combined.py")


@dataclass(frozen=True)
class Run:
    """What one process took."""

    seconds: float
    peak: int  # KiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="one layer: to see that the bench works")
    parser.add_argument("--only", default="peft,svd,files", help="which parts, with commas between")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(dir=asked.folder) as scratch:
        parts = asked.only.split(",")
        if "peft" in parts:
            beside_peft(
                Path(scratch) / "peft", 768, 1 if asked.small else 4, list(METHODS), COUNTS, asked.rounds
            )
        if "svd" in parts:
            beside_peft(Path(scratch) / "svd", 4096, 1, ["svd"], COUNTS, 1)
        if "files" in parts:
            beside_files(asked.folder, Path(scratch), 2 if asked.small else 24, asked.rounds)
    print(f"load after {os.getloadavg()[0]:.1f}")


def beside_peft(
    folder: Path, width: int, layers: int, methods: list[str], counts: tuple[int, ...], rounds: int
) -> None:
    made = make_adapters(folder, width, layers, max(counts))
    print(f"\n{width} wide, {made} modules, rank 16; ms a module, and MiB at the peak")
    print(
        f"{'':<22}{'adapters':>9}{'PEFT':>11}{'adaptry':>11}{'PEFT / it':>11}{'PEFT MiB':>11}{'MiB':>8}  same"
    )
    for method in methods:
        for count in counts:
            theirs, ours = (
                [run_worker(who, method, count, folder) for _ in range(rounds)] for who in ("peft", "adaptry")
            )
            slow, fast = (median(run.seconds for run in runs) for runs in (theirs, ours))
            print(
                f"{method:<22}{count:>9}{slow / made * 1e3:>11.2f}{fast / made * 1e3:>11.2f}{slow / fast:>11.1f}"
                f"{max(run.peak for run in theirs) / 1024:>11.0f}{max(run.peak for run in ours) / 1024:>8.0f}"
                f"  {same_factors(folder, method, count)}",
                flush=True,
            )


def run_worker(who: str, method: str, count: int, folder: Path) -> Run:
    """One process, from its start to its report."""
    command = [sys.executable, "-W", "ignore", str(WORKER), who, method, str(count), str(folder)]
    run = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    if run.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{run.stderr}")
    told = json.loads(run.stdout.splitlines()[-1])
    return Run(told["seconds"], told["peak"])


def beside_files(kept: Path, scratch: Path, layers: int, rounds: int) -> None:
    """Whole commands, beside `cp` or `cat` of the bytes they cannot do without."""
    made = generated(kept, layers)
    tuned = scratch / "tuned"
    adaptry = [sys.executable, "-m", "adaptry_cli"]
    subprocess.run(
        [
            *adaptry,
            "merge",
            "--base",
            str(made.base.absolute()),
            str(made.adapter.absolute()),
            "-o",
            str(tuned),
            "--no-hash",
        ],
        check=True,
        capture_output=True,
    )
    adapter, base = str(made.adapter.absolute()), str(made.base.absolute())
    again = shutil.copytree(adapter, scratch / "again")
    print(
        f"\nwhole commands, {size(made.base) / 1e9:.2f} GB of base, {size(made.adapter) / 1e6:.0f} MB an adapter"
    )
    print(f"{'':<36}{'median':>9}{'beyond start':>14}{'× its bytes':>13}{'peak MiB':>10}")
    start = median(
        run.seconds for run in timed([sys.executable, "-c", "import torch, adaptry_cli.combine"], rounds)
    )
    limits = {
        "cp of two adapters": ["sh", "-c", f'cp -r "{adapter}" "{scratch}/one" && cp -r "{again}" "{scratch}/two"; rm -r "{scratch}/one" "{scratch}/two"'],
        "cp of one adapter": ["sh", "-c", f'cp -r "{adapter}" "{scratch}/one"; rm -r "{scratch}/one"'],
        "cat of two checkpoints": ["sh", "-c", f'cat "{base}"/*.safetensors "{tuned}"/*.safetensors > /dev/null'],
    }  # fmt: skip
    seconds = {
        name: median(run.seconds for run in timed(command, rounds)) for name, command in limits.items()
    }
    for name, wall in seconds.items():
        print(f"{name:<36}{wall:>7.2f} s")
    out = str(scratch / "out")
    for name, limit, words in (
        ("stack of two", "cp of two adapters", ["stack", adapter, str(again), "-o", out]),
        ("resize to rank 8", "cp of one adapter", ["resize", adapter, "--rank", "8", "-o", out]),
        ("extract at rank 16", "cat of two checkpoints", ["extract", str(tuned), "--base", base, "--rank", "16", "--no-verify", "-o", out]),
    ):  # fmt: skip
        runs = list(timed([*adaptry, *words], rounds, out))
        wall = median(run.seconds for run in runs)
        print(
            f"{name:<36}{wall:>7.2f} s{wall - start:>12.2f} s{(wall - start) / seconds[limit]:>13.1f}"
            f"{max(run.peak for run in runs) / 1024:>10.0f}",
            flush=True,
        )


def timed(command: list[str], rounds: int, output: str = "") -> Iterator[Run]:
    """A command's runs; its peak is that of the largest child waited for, so each runs under a parent of its own."""
    measuring = (
        "import json, resource, subprocess, sys, time; began = time.perf_counter(); "
        "run = subprocess.run(sys.argv[1:], capture_output=True, text=True); "
        "took = time.perf_counter() - began; sys.exit(run.stderr) if run.returncode else None; "
        "print(json.dumps([took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))"
    )
    for _ in range(rounds):
        os.sync()
        told = subprocess.run(
            [sys.executable, "-c", measuring, *command], check=False, capture_output=True, text=True
        )
        if told.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{told.stderr}")
        if output:
            shutil.rmtree(output)
        yield Run(*json.loads(told.stdout))


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


if __name__ == "__main__":
    main()
