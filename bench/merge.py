"""Measures the cost of a merge into base weights, compared with copying the files and with PEFT, in one run.

    python bench/merge.py [--folder .bench] [--rounds 3] [--small] [--brief] [--peft-rounds 1]

Every contestant is a whole process that writes a fresh folder; rounds are interleaved, and medians count. Our
merge flushes its files to disk before it ends, so it is compared with `cp` with a flush, and also without
one. `beyond start` leaves out the time in which an interpreter has imported what a merge imports. Memory is
the process's VmHWM. Every result is compared with PEFT's, element by element. Needs five times the base on
the disk (12 GB).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from figures import note
from generated import Generated, generated

from adaptry.bases.hf_folder import HfCheckpoint, open_checkpoint

REPORTING = """
import atexit, os, runpy, sys
def report():
    with open("/proc/self/status") as status:
        peak = next(line for line in status if line.startswith("VmHWM")).split()[1]
    os.write(int(os.environ["REPORT_TO"]), peak.encode())
atexit.register(report)
"""
OURS = REPORTING + "sys.argv[0] = 'adaptry'; runpy.run_module('adaptry_cli', run_name='__main__')"
START = (
    "import adaptry_cli.main, adaptry_cli.merge, adaptry.operations.base_registry,"
    " adaptry.compute.merging.merge, adaptry.compute.tensors.llvm_kernel"
)
PEFT = (
    REPORTING
    + """
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
"""
)


BRIEF = ("start", "cp", "cp, flushed", "adaptry")
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore",
}


@dataclass
class Contestant:
    """A program that writes a folder, and the costs of its runs. `start` names the start-up that is not
    counted."""

    command: list[str]
    start: str = ""
    seconds: list[float] = field(default_factory=list)
    peak: int = 0  # KiB
    differing: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peft-rounds", type=int, default=1)
    parser.add_argument(
        "--small", action="store_true", help="a base of 2 layers: to see that the bench works"
    )
    parser.add_argument("--brief", action="store_true", help="only the merge with digests, cp, and PEFT")
    asked = parser.parse_args()
    layers = 2 if asked.small else 24
    asked.folder.mkdir(parents=True, exist_ok=True)
    needed, free = (layers * 90 << 20) * 5 + (3 << 30), shutil.disk_usage(asked.folder).free
    if free < needed:
        sys.exit(
            f"{asked.folder} has {free / 1e9:.0f} GB free and {needed / 1e9:.0f} GB are needed: try --folder"
        )
    large, quarter = generated(asked.folder, layers), generated(asked.folder, max(1, layers // 4))
    print(
        f"{size_of(large.base) / 1e9:.2f} GB of base, {asked.rounds} rounds, {os.cpu_count()} cores, "
        f"load before {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    with tempfile.TemporaryDirectory(dir=asked.folder) as scratch:
        field_of = measure(large, Path(scratch), asked.rounds, asked.peft_rounds, is_brief=asked.brief)
        show(field_of)
        note("merge", field_of["adaptry"].seconds, field_of["cp, flushed"].seconds)
        note("merge-peft", field_of["adaptry"].seconds[:1], field_of["PEFT: load, merge, save"].seconds[:1])
        note("merge-memory", [field_of["adaptry"].peak * 1024])
        print("peak memory when the base is smaller:")
        for name, contestant in contestants(quarter).items():
            if name.startswith("adaptry") and not asked.brief:
                run_once(contestant, Path(scratch) / "quarter")
                shutil.rmtree(Path(scratch) / "quarter")
                print(
                    f"  {name:<28}{contestant.peak / 1024:6.0f} MiB at {size_of(quarter.base) / 1e9:.2f} GB"
                )
    print(f"load after {os.getloadavg()[0]:.1f}")


def contestants(made: Generated) -> dict[str, Contestant]:
    base, adapter = str(made.base), str(made.adapter.absolute())

    def ours(*options: str) -> list[str]:
        return [
            sys.executable,
            "-c",
            OURS,
            "merge",
            "--base",
            str(made.base.absolute()),
            adapter,
            *options,
            "-o",
        ]

    return {
        "start": Contestant([sys.executable, "-c", START]),
        "start with torch": Contestant([sys.executable, "-c", f"{START}, torch"]),
        "cp": Contestant(["cp", "-r", base]),
        "cp, flushed": Contestant(["sh", "-c", 'cp -r "$0" "$1" && sync "$1"/*', base]),
        "adaptry": Contestant(ours(), "start"),
        "adaptry --no-hash": Contestant(ours("--no-hash"), "start"),
        "adaptry, torch": Contestant(ours("--kernel", "torch"), "start with torch"),
        "adaptry, torch, --no-hash": Contestant(ours("--kernel", "torch", "--no-hash"), "start with torch"),
    }


def measure(
    made: Generated, scratch: Path, rounds: int, peft_rounds: int, *, is_brief: bool
) -> dict[str, Contestant]:
    """Measures every contestant. The first round's results are compared with PEFT's first."""
    peft = Contestant([sys.executable, "-c", PEFT, str(made.base), str(made.adapter)])
    reference = scratch / "peft"
    run_once(peft, reference)
    wanted = open_checkpoint(reference)
    field_of = contestants(made)
    if is_brief:
        field_of = {name: field_of[name] for name in BRIEF}
    for number in range(rounds):
        for name, contestant in field_of.items():
            target = scratch / "out"
            run_once(contestant, target)
            if not number and name.startswith("adaptry"):
                differing, total = differences(open_checkpoint(target), wanted)
                contestant.differing = f"{differing:,} of {total:,}"
            shutil.rmtree(target, ignore_errors=True)
    for number in range(1, peft_rounds):
        run_once(peft, scratch / f"peft-{number}")
    return {**field_of, "PEFT: load, merge, save": peft}


def run_once(contestant: Contestant, target: Path) -> None:
    """One run of the process, after earlier writes have been flushed."""
    os.sync()
    reading, writing = os.pipe()
    environment = {
        **os.environ,
        **QUIET,
        "REPORT_TO": str(writing),
        "ADAPTRY_HOME": str(target.parent / "home"),
    }
    command = [*contestant.command, str(target)]
    began = time.perf_counter()
    run = subprocess.run(
        command, check=False, pass_fds=[writing], env=environment, capture_output=True, text=True
    )
    contestant.seconds.append(time.perf_counter() - began)
    if run.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{run.stderr}")
    os.close(writing)
    contestant.peak = max(contestant.peak, int(os.read(reading, 64) or 0))
    os.close(reading)


def differences(found: HfCheckpoint, wanted: HfCheckpoint) -> tuple[int, int]:
    """The number of elements whose bits differ, and the number of all elements."""
    if found.tensors.keys() != wanted.tensors.keys():
        sys.exit("the merges do not have the same tensors")
    differing = total = 0
    for name, info in found.tensors.items():
        pair = [
            np.memmap(one.path_of(name), "<u2", "r", one.tensors[name].start, (info.numel,))
            for one in (found, wanted)
        ]
        differing += int(np.count_nonzero(pair[0] != pair[1]))
        total += info.numel
    return differing, total


def show(field_of: Mapping[str, Contestant]) -> None:
    seconds = {name: median(one.seconds) for name, one in field_of.items()}
    cp, flushed, peft = seconds["cp"], seconds["cp, flushed"], seconds["PEFT: load, merge, save"]
    titles = (
        "best",
        "median",
        "× cp",
        "× flushed",
        "beyond start",
        "× cp",
        "× flushed",
        "PEFT / it",
        "peak MiB",
    )
    print(f"{'':<28}" + "".join(f"{title:>13}" for title in titles) + "  differs from PEFT")
    for name, one in field_of.items():
        wall = seconds[name]
        beyond = wall - seconds[one.start] if one.start else wall
        if name.startswith("start"):
            print(f"{name:<28}{min(one.seconds):11.2f} s{wall:11.2f} s")
            continue
        cells = (
            f"{min(one.seconds):.2f} s",
            f"{wall:.2f} s",
            f"{wall / cp:.2f}",
            f"{wall / flushed:.2f}",
            f"{beyond:.2f} s",
            f"{beyond / cp:.2f}",
            f"{beyond / flushed:.2f}",
            f"{peft / wall:.1f}",
            f"{one.peak / 1024:.0f}" if one.peak else "",
        )
        print(f"{name:<28}" + "".join(f"{cell:>13}" for cell in cells) + f"  {one.differing}")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


if __name__ == "__main__":
    main()
