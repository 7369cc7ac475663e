"""Measures the cost of a merge as a job, compared with `adaptry merge`.

    python bench/jobs.py [--folder .bench] [--layers 12] [--rounds 3] [--brief]

The generated base (three files) and adapter are in an embedded registry, the base stored. Each round merges
them by the command, by a job on a running runner (with one step per core, as the command has one thread per
core), by a job of one `adaptry work --once`, and by a job that two of these share. It counts processor
seconds and bytes written of all processes (`getrusage` of child processes). Files are compared by digest.
`--brief` leaves out the shared job. On two cores, sharing brings hardly any speed-up; the bench measures its
cost. Needs four times the base's size on the disk.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

from figures import note
from generated import Generated, asked_of, generated

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.registry.job_types.records import JobNeeds, JobOrder
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry

COMMAND = (sys.executable, "-m", "adaptry_cli")
Files = dict[str, Digest]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """Elapsed seconds, processor seconds, and bytes written."""

    seconds: float
    busy: float
    written: int


def main() -> None:
    asked = asked_of(__doc__, has_brief=True)
    made = generated(asked.folder, asked.layers)
    with tempfile.TemporaryDirectory(dir=asked.folder) as scratch:
        measure(made, Path(scratch), asked.rounds, is_brief=asked.brief)


def measure(made: Generated, scratch: Path, rounds: int, *, is_brief: bool) -> None:
    registry = open_local(scratch / "data")
    register_base(registry, open_checkpoint(made.base), ("org/base",), store=True, cache=scratch / "seen")
    push(registry, open_dir(made.adapter), "acme/tone")
    size = sum(path.stat().st_size for path in made.base.glob("*.safetensors"))
    starting = {"a job, one runner": 1, **({} if is_brief else {"a job, two runners": 2})}
    costs: dict[str, list[Cost]] = {name: [] for name in ("adaptry merge", "a job", *starting)}
    with running_runner(scratch / "data") as runner:
        _, files = on_running_runner(registry, runner, "acme/first")  # its first job waits for imports
        remove(registry, files)
        for number in range(rounds):
            cost, target = counted(lambda: by_command(scratch))
            costs["adaptry merge"].append(cost)
            expected = digests(target)
            cost, files = on_running_runner(registry, runner, f"acme/running-{number}")
            require_same("a job", files, expected)
            remove(registry, files)
            costs["a job"].append(cost)
            for name, runners in starting.items():
                cost, files = counted(partial(by_job, registry, scratch / "data", number, runners))
                require_same(name, files, expected)
                remove(registry, files)
                costs[name].append(cost)
    print(
        f"{size / 1e9:.2f} GB in three files, {rounds} rounds (the median), {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}; the files are the same"
    )
    for row, name in (("merge-job", "a job"), ("merge-job-start", "a job, one runner")):
        note(row, *([cost.seconds for cost in costs[each]] for each in (name, "adaptry merge")))
    least = median(cost.busy for cost in costs["adaptry merge"])
    for name, found in costs.items():
        busy, seconds = median(cost.busy for cost in found), median(cost.seconds for cost in found)
        written = median(cost.written for cost in found)
        print(
            f"  {name:20} {busy / size * 1e9:6.2f} processor s a GB ({busy / least:4.2f} times the"
            f" command's), {written / size:4.2f} bytes written a byte, {seconds:6.1f} s"
        )


def require_same(name: str, files: Files, expected: Files) -> None:
    if files != expected:
        sys.exit(f"{name}: different files than the command's: {files} and {expected}")


def remove(registry: LocalRegistry, files: Files) -> None:
    """Deletes stored weight files, so that the next job stores new files, like the command."""
    for digest in files.values():
        registry.blobs.delete(digest)


def counted(action: Callable[[], Result]) -> tuple[Cost, Result]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = action()
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, busy, (after.ru_oublock - before.ru_oublock) * 512), result


def by_command(scratch: Path) -> Path:
    target = scratch / "merged"
    words = (
        "merge",
        "acme/tone@1",
        "--base",
        "org/base",
        "-o",
        str(target),
        "--registry",
        str(scratch / "data"),
    )
    subprocess.run([*COMMAND, *words], check=True, capture_output=True)
    return target


def digests(target: Path) -> Files:
    """The digests of the weight files, which are then removed."""
    found = {path.name: Digest.of_chunks(chunks(path)) for path in target.glob("*.safetensors")}
    shutil.rmtree(target)
    return found


def by_job(registry: LocalRegistry, data: Path, number: int, runners: int) -> Files:
    task = {"base": "org/base", "inputs": ["acme/tone@1"], "to": f"acme/merged-{number}-{runners}"}
    task |= {"divide": runners > 1}
    needs = JobNeeds(tag="once")  # the running runner does not have these
    job = registry.jobs.submit(JobOrder(kind="merge", task=task, needs=needs))
    work = [*COMMAND, "work", "--data", str(data), "--once", "--tag", "once"]
    at_work = [
        subprocess.Popen(work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(runners)
    ]
    for each in at_work:
        if each.wait():
            sys.exit("a runner failed")
    return files_of(registry, job.id)


@contextmanager
def running_runner(data: Path) -> Iterator[subprocess.Popen[bytes]]:
    words = ["work", "--data", str(data), "--concurrency", str(os.cpu_count() or 1)]
    runner = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield runner
    finally:
        runner.terminate()
        runner.wait()


def on_running_runner(
    registry: LocalRegistry, runner: subprocess.Popen[bytes], to: str
) -> tuple[Cost, Files]:
    """The bytes written are not known."""
    task = {"base": "org/base", "inputs": ["acme/tone@1"], "to": to}
    before, began = processor_seconds(runner.pid), time.perf_counter()
    job = registry.jobs.submit(JobOrder(kind="merge", task=task))
    while registry.jobs.get(job.id).is_open:
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    files = files_of(registry, job.id)
    return Cost(seconds, processor_seconds(runner.pid) - before, 0), files


def processor_seconds(pid: int) -> float:
    """The processor seconds of a process, its children, and those for which they waited."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = [
        child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    own = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_seconds(int(child)) for child in children)


def files_of(registry: LocalRegistry, id: str) -> Files:
    done = registry.jobs.get(id)
    if done.result is None:
        sys.exit(f"the job is {done.state}: {done.error}")
    files = {entry["path"]: Digest.parse(entry["sha256"]) for entry in done.result["files"]}
    return {name: digest for name, digest in files.items() if name.endswith(".safetensors")}


def chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            yield data


if __name__ == "__main__":
    main()
