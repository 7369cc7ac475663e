"""The queues of steps, and the queues that a runner serves, by requirements and resources.

A queue's name is a set of requirements: a device or any, a tag or none, and a size of memory. A runner serves
every queue whose requirements it meets. Memory is rounded up to a few sizes, so that there are few queues;
runners then reserve the exact amount (`capacity`). Jobs wait in separate queues with the same requirements:
overseeing a job computes nothing, but the runner must be able to run its steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from adaptry.registry.job_types.records import GIB, JobNeeds, RunnerInfo
from adaptry.storage.catalog.jobs import UnfinishedJob

_SIZES = (8, 64, 512, 1 << 20)  # GiB


def step_queue(needs: JobNeeds) -> str:
    size = next(size for size in _SIZES if needs.memory <= size * GIB)
    return _name(needs.device, needs.tag, size)


def job_queue(queue: str) -> str:
    """The queue of jobs whose first step will wait in `queue`."""
    return f"jobs:{queue}"


def runner_queues(devices: Iterable[str], tags: Iterable[str], memory: int) -> tuple[str, ...]:
    """The queues that a runner serves. Every runner accepts the smallest size: a small machine runs small
    steps one at a time. `devices` are those in addition to the processor.
    """
    sizes = [size for size in _SIZES if size == _SIZES[0] or size * GIB <= memory]
    return tuple(
        _name(device, tag, size) for device in (None, *devices) for tag in (None, *tags) for size in sizes
    )


def next_of_each_namespace(jobs: Iterable[UnfinishedJob], maximum: int) -> Iterator[UnfinishedJob]:
    """The first `maximum` jobs of each namespace in each queue, in the same order. (Jobs that wait for a
    runner of another kind do not delay others.)
    """
    found: Counter[tuple[str, str]] = Counter()
    for job in jobs:
        group = job.namespace, step_queue(job.needs)
        found[group] += 1
        if found[group] <= maximum:
            yield job


def can_run(runner: RunnerInfo, needs: JobNeeds) -> bool:
    """Whether a runner meets a step's requirements."""
    return step_queue(needs) in runner_queues(runner.devices, runner.tags, runner.memory)


def _name(device: str | None, tag: str | None, size: int) -> str:
    return f"{device if device and device != 'cpu' else 'any'}:{tag or ''}:{size}"
