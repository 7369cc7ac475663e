"""A merge that a client submits and waits for, and the same merge on one machine for comparison."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.job_types.records import JobInfo, JobOrder
from adaptry.testing.samples import tiny_base, tiny_lora

from .repeated_operations import patiently

SHARDS = 3


def ordered(registry: Registry, folder: Path, name: str) -> JobInfo:
    """Pushes a base of several files and an adapter of it, and submits the merge."""
    base = tiny_base(folder / "base", shards=SHARDS, seed=len(name))
    patiently(lambda: register_base(registry, open_checkpoint(base), (f"org/{name}",), store=True))
    lora = open_dir(tiny_lora(folder / "lora", base_name=f"org/{name}"))
    patiently(lambda: push(registry, lora, f"acme/{name}"))
    task = {
        "base": f"org/{name}",
        "inputs": [f"acme/{name}"],
        "to": f"org/{name}-merged",
        "divide": True,
    }
    return patiently(lambda: registry.jobs.submit(JobOrder(kind="merge", task=task)))


def begun(registry: Registry, job: JobInfo) -> None:
    """Waits until a runner has begun the job."""
    end = time.monotonic() + 60
    while patiently(lambda: registry.jobs.get(job.id)).state == "queued":
        assert time.monotonic() < end
        time.sleep(0.05)


def ended(registry: Registry, job: JobInfo) -> JobInfo:
    end = time.monotonic() + 240
    while (seen := patiently(lambda: registry.jobs.get(job.id))).is_open:
        assert time.monotonic() < end, seen
        time.sleep(0.2)
    return seen


def assert_as_on_one_machine(registry: Registry, folder: Path, name: str) -> None:
    """The stored result has the files that `adaptry merge` writes."""
    command = [str(Path(sys.executable).with_name("adaptry")), "merge", "--base", str(folder / "base")]
    subprocess.run(
        [*command, str(folder / "lora"), "-o", str(folder / "merged")], check=True, capture_output=True
    )
    stored = {entry.path: entry.sha256.hex for entry in registry.bases.get(f"org/{name}-merged").stored}
    weights = sorted((folder / "merged").glob("*.safetensors"))
    assert len(weights) == SHARDS
    for path in weights:
        assert stored[path.name] == hashlib.sha256(path.read_bytes()).hexdigest(), path.name


def assert_ended_once(registry: Registry, job: JobInfo, folder: Path, name: str) -> None:
    """Asserts that the job is done at its first try, with all pieces, without another job, and with a
    complete result.
    """
    seen = ended(registry, job)
    assert (seen.state, seen.pieces, seen.attempts, seen.error) == ("done", SHARDS, 1, None)
    about = [one for one in registry.jobs.list(limit=200).items if one.task.get("to") == f"org/{name}-merged"]
    assert [one.id for one in about] == [job.id]
    made = [one for one in _bases(registry) if f"org/{name}-merged" in one]
    assert len(made) == 1
    assert_as_on_one_machine(registry, folder, name)


def _bases(registry: Registry) -> list[tuple[str, ...]]:
    """The names of all bases."""
    found, page = [], registry.bases.list()
    while True:
        found += [one.names for one in page.items]
        if page.next is None:
            return found
        page = registry.bases.list(cursor=page.next)
