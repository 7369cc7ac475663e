"""Measures how many tiny jobs a runner completes per second.

    python bench/tiny_jobs.py [--jobs 20] [--rounds 3] [--concurrency 2] [--folder DIR]

Each job combines two adapters of a few kilobytes in an embedded registry. All jobs are submitted, then one
`adaptry work --once` runs them, as many at once as there are cores. The rate is that of a busy runner, from
the end of the first job to the end of the last: the first one waits for the import of torch, which is shown
separately, as is the processor time of the whole run per job. Then `adaptry combine` of the same two adapters
is run once for each round.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from figures import note

from adaptry.adapters.adapter import open_dir
from adaptry.operations.transfer import push
from adaptry.registry.job_types.records import JobInfo, JobOrder
from adaptry.storage.connect import open_local
from adaptry.testing.samples import tiny_lora

COMMAND = (sys.executable, "-m", "adaptry_cli")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    logging.getLogger("adaptry.push").setLevel(logging.ERROR)  # the base is not registered
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        measure(Path(folder), asked.jobs, asked.rounds, asked.concurrency)


def measure(folder: Path, jobs: int, rounds: int, concurrency: int) -> None:
    data = folder / "data"
    registry = open_local(data)
    for number in range(2):
        push(registry, open_dir(tiny_lora(folder / str(number), seed=number)), f"acme/tone-{number}")
    inputs = ["acme/tone-0@1", "acme/tone-1@1"]
    rates, waits, busy, alone = [], [], [], []
    for number in range(rounds):
        orders = [
            registry.jobs.submit(
                JobOrder(
                    kind="combine",
                    task={"inputs": inputs, "to": f"acme/made-{number}-{job}", "method": "linear"},
                )
            )
            for job in range(jobs)
        ]
        began, used = datetime.now(UTC), processor_seconds()
        words = ("--once", "--concurrency", str(concurrency))
        timed("work", "--data", str(data), *words)
        busy.append((processor_seconds() - used) / jobs)
        ends = sorted(end_of(registry.jobs.get(order.id)) for order in orders)
        rates.append((jobs - 1) / (ends[-1] - ends[0]).total_seconds())
        waits.append((ends[0] - began).total_seconds())
        made = ("combine", *inputs, "--method", "linear", "-o", str(folder / f"made-{number}"))
        alone.append(1 / timed(*made, "--registry", str(data)))
    print(
        f"{median(rates):.2f} jobs/s ({min(rates):.2f} to {max(rates):.2f}), {median(busy):.2f} processor s a"
        f" job; the first after {median(waits):.2f} s; the command {1 / median(alone):.2f} s"
    )
    note("tiny-jobs", rates, alone)


def end_of(job: JobInfo) -> datetime:
    if job.result is None or job.finished_at is None:
        sys.exit(f"a job is {job.state}: {job.error}")
    return job.finished_at


def processor_seconds() -> float:
    """The processor seconds of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(*words: str) -> float:
    began = time.perf_counter()
    subprocess.run([*COMMAND, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
