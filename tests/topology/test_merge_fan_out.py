"""A merge that runners share: the same bytes as on one machine, once, whoever is killed meanwhile."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adaptry.adapter.view import open_dir
from adaptry.bases import register
from adaptry.checkpoint import open_checkpoint
from adaptry.jobs.records import JobInfo, JobOrder
from adaptry.registry import Registry
from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry.transfer import push

from .pushing import patiently
from .running import Running

SHARDS = 3
KILLED = ("runner-1", "runner-2", "api-1", "balancer", "postgres", "s3")


def ordered(registry: Registry, folder: Path, name: str) -> JobInfo:
    """A base of several files and an adapter of it, pushed, and the order to merge them."""
    base = tiny_base(folder / "base", shards=SHARDS, seed=len(name))
    patiently(lambda: register(registry, open_checkpoint(base), (f"org/{name}",), store=True))
    lora = open_dir(tiny_lora(folder / "lora", base_name=f"org/{name}"))
    patiently(lambda: push(registry, lora, f"acme/{name}"))
    task = {"base": f"org/{name}", "inputs": [f"acme/{name}"], "to": f"org/{name}-merged"}
    return patiently(lambda: registry.submit_job(JobOrder(kind="merge", task=task)))


def ended(registry: Registry, job: JobInfo) -> JobInfo:
    end = time.monotonic() + 240
    while (seen := patiently(lambda: registry.job(job.id))).is_open:
        assert time.monotonic() < end, seen
        time.sleep(0.2)
    return seen


def assert_as_on_one_machine(registry: Registry, folder: Path, name: str) -> None:
    """The stored result has the files that `adaptry merge` writes."""
    program = Path(sys.executable).with_name("adaptry")
    command = [
        str(program),
        "merge",
        "--base",
        str(folder / "base"),
        str(folder / "lora"),
        "-o",
        str(folder / "merged"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    stored = {entry.path: entry.sha256.hex for entry in registry.base(f"org/{name}-merged").stored}
    weights = sorted((folder / "merged").glob("*.safetensors"))
    assert len(weights) == SHARDS
    for path in weights:
        assert stored[path.name] == hashlib.sha256(path.read_bytes()).hexdigest(), path.name


def test_a_merge_shared_by_runners_is_what_one_machine_makes(running: Running, tmp_path: Path) -> None:
    registry = running.registry()
    job = ended(registry, ordered(registry, tmp_path, "shared"))
    assert (job.state, job.pieces, job.fault) == ("done", SHARDS, None)
    assert_as_on_one_machine(registry, tmp_path, "shared")


@pytest.mark.heavy
@pytest.mark.parametrize("service", KILLED)
def test_whoever_is_killed_amid_a_merge_it_ends_once(running: Running, tmp_path: Path, service: str) -> None:
    registry, name = running.registry(), f"without-{service}"
    job = ordered(registry, tmp_path, name)
    end = time.monotonic() + 60
    while patiently(lambda: registry.job(job.id)).state == "queued":
        assert time.monotonic() < end
        time.sleep(0.05)
    running.hurt(service)
    seen = ended(registry, job)
    assert (seen.state, seen.pieces, seen.tries, seen.fault) == ("done", SHARDS, 1, None)
    about = [one for one in registry.jobs(limit=200).items if one.task.get("to") == f"org/{name}-merged"]
    assert [one.id for one in about] == [job.id]
    assert_as_on_one_machine(registry, tmp_path, name)
