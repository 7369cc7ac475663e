"""Measures the cost of combining adapters, compared with PEFT and with the necessary memory and files, in one
run.

    python bench/combine.py [--folder .bench] [--rounds 3] [--small] [--only peft,svd,files]

*peft*: every combination of PEFT's `add_weighted_adapter` on 2, 4 and 8 adapters of a 768-wide model, each in
  a separate process: PEFT; our mode that replays it, whose factors must be the same bit for bit; and our own
  method of that name, if the type combines updates, with its distance from PEFT's result. Times are from the
  adapters' files to the result's; `call` is PEFT's single call on loaded adapters, so our figure beside it
  includes more work.
*svd*: the same for modules of 4096×4096, where PEFT decomposes densely and our own method works on the
  factors; and our own method for as many modules as a model has, since two take less time than the start of a
  process.
*files*: stack, resize and extract, compared with copying the bytes that they read and write.
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

from combined import METHODS, OWN, make_adapters, make_many, sameness
from figures import note
from generated import generated

COUNTS = (2, 4, 8)
WORKER = Path(__file__).with_name("combined.py")


@dataclass(frozen=True)
class Run:
    """The time and memory of one process."""

    seconds: float
    peak: int  # KiB
    call: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="one layer: to see that the bench works")
    parser.add_argument("--only", default="peft,svd,dense,files", help="which parts, with commas between")
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
        if "dense" in parts:
            dense = ["ties_svd", "dare_ties_svd"]
            beside_peft(Path(scratch) / "dense", 4096, 1, dense, COUNTS[:1], asked.rounds)
        if "svd" in parts:
            many_modules(Path(scratch) / "many", 4096, 32, asked.rounds)
        if "files" in parts:
            beside_files(asked.folder, Path(scratch), 2 if asked.small else 24, asked.rounds)
    print(f"load after {os.getloadavg()[0]:.1f}")


def beside_peft(
    folder: Path, width: int, layers: int, methods: list[str], counts: tuple[int, ...], rounds: int
) -> None:
    made = make_adapters(folder, width, layers, max(counts))
    print(f"\n{width} wide, {made} modules, rank 16; ms a module, and MiB at the peak")
    print(
        f"{'':<20}{'':>4}{'PEFT':>9}{'call':>9}{'replay':>9}{'own':>9}"
        f"{'PEFT/replay':>13}{'PEFT/own':>10}{'call/own':>10}{'MiB':>6}{'':>5}{'':>5}  replay  own"
    )
    for method in methods:
        for count in counts:
            takes_part = ("peft", "replay", *(["own"] if method in OWN else []))
            runs: dict[str, list[Run]] = {who: [] for who in takes_part}
            for _ in range(rounds):  # they take turns
                for who, found in runs.items():
                    found.append(run_worker(who, method, count, folder))
            if "own" in runs and width == 4096:
                note(
                    f"combine-{method}",
                    *([run.seconds / made for run in runs[who]] for who in ("own", "peft")),
                )
            print(line_of(method, count, runs, made, folder), flush=True)


def many_modules(folder: Path, width: int, layers: int, rounds: int) -> None:
    """Our own svd of a whole model's modules, for which the fixed cost of a process is negligible."""
    made = make_many(folder, width, layers, max(COUNTS))
    print(f"\n{width} wide, {made} modules, rank 16, our own svd alone; ms a module")
    for count in COUNTS:
        took = median(run_worker("own", "svd", count, folder).seconds for _ in range(rounds))
        print(f"{'svd':<20}{count:>4}{took / made * 1e3:>9.2f}", flush=True)


def line_of(method: str, count: int, runs: dict[str, list[Run]], modules: int, folder: Path) -> str:
    """A line with ms per module, ratios, peaks in MiB (PEFT, replay, own), and the distances of the
    results.
    """
    took = {who: median(run.seconds for run in each) for who, each in runs.items()}
    call = median(run.call for run in runs["peft"])
    times = [took["peft"], call, took["replay"], took.get("own")]
    ratios = [
        took["peft"] / took["replay"],
        *(t / took["own"] if "own" in took else None for t in (took["peft"], call)),
    ]
    peaks = [max(run.peak for run in each) / 1024 for each in runs.values()]
    near = [sameness(folder, method, count, who) for who in runs if who != "peft"]
    return (
        f"{method:<20}{count:>4}"
        + "".join(f"{seconds / modules * 1e3:>9.2f}" if seconds else f"{'':>9}" for seconds in times)
        + "".join(
            f"{ratio:>{width}.1f}" if ratio else f"{'':>{width}}"
            for ratio, width in zip(ratios, (13, 10, 10), strict=True)
        )
        + f"{' /'.join(f'{peak:.0f}' for peak in peaks):>16}  {'  '.join(f'{each:<6}' for each in near)}"
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
    return Run(told["seconds"], told["peak"], told["call"])


def beside_files(kept: Path, scratch: Path, layers: int, rounds: int) -> None:
    """Whole commands, compared with `cp` or `cat` of the necessary bytes."""
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
        f"\nwhole commands, {size(made.base) / 1e9:.2f} GB of base, {size(made.adapter) / 1e6:.0f} MB an"
        " adapter"
    )
    print(f"{'':<36}{'median':>9}{'beyond start':>14}{'× its bytes':>13}{'peak MiB':>10}")
    start = median(
        run.seconds for run in timed([sys.executable, "-c", "import torch, adaptry_cli.combine"], rounds)
    )
    limits = {
        "cp of two adapters": [
            "sh", "-c", f'cp -r "{adapter}" "{scratch}/one" && cp -r "{again}" "{scratch}/two"; '
            f'rm -r "{scratch}/one" "{scratch}/two"'],
        "cp of one adapter": ["sh", "-c", f'cp -r "{adapter}" "{scratch}/one"; rm -r "{scratch}/one"'],
        "cat of two checkpoints": [
            "sh", "-c", f'cat "{base}"/*.safetensors "{tuned}"/*.safetensors > /dev/null'],
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
        ("extract at rank 16", "cat of two checkpoints",
         ["extract", str(tuned), "--base", base, "--rank", "16", "--no-verify", "-o", out]),
    ):  # fmt: skip
        runs = list(timed([*adaptry, *words], rounds, out))
        wall = median(run.seconds for run in runs)
        print(
            f"{name:<36}{wall:>7.2f} s{wall - start:>12.2f} s{(wall - start) / seconds[limit]:>13.1f}"
            f"{max(run.peak for run in runs) / 1024:>10.0f}",
            flush=True,
        )


def timed(command: list[str], rounds: int, output: str = "") -> Iterator[Run]:
    """A command's runs. The peak is that of the largest child of a process, so each run has a separate
    parent.
    """
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
