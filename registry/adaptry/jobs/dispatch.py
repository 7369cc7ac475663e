"""Maps each kind of job to its handler.

A handler is one function of a task and a `JobContext`; or a module with three: `start` divides the job into
pieces, `piece` runs one of them on any runner with capacity, and `end` combines their results. Only the
handler that is needed is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from adaptry.jobs.context import JobContext
from adaptry.jobs.ipc import StepResult
from adaptry.registry.job_types.task import JobTask

HANDLERS: Mapping[str, str] = {
    "merge": "merge_jobs",
    "combine": "derive_jobs:combine",
    "preview": "preview_jobs:preview",
    "convert": "derive_jobs:convert",
    "export": "derive_jobs:export",
    "weight-statistics": "weight_statistics_jobs:measure",
    "evaluate": "evaluation_jobs:evaluate",
    "fingerprint": "maintenance_jobs:fingerprint",
    "verify": "maintenance_jobs:verify",
    "gc": "maintenance_jobs:collect",
    "replicate": "maintenance_jobs:replicate",
}
"""`module` of this package for three steps, `module:function` for one."""

TORCH_KINDS = frozenset({"combine", "preview", "convert", "export", "weight-statistics"})
"""Kinds whose steps compute with torch. (A merge may: it is decided when its plan is known.)"""


def run_handler(kind: str, task: JobTask, step: str, context: JobContext) -> StepResult:
    """Runs one step of a job and returns its result."""
    module_name, _, function = HANDLERS[kind].partition(":")
    module = importlib.import_module(f"adaptry.jobs.{module_name}")
    if function or step in ("start", "end"):
        outcome = getattr(module, function or step)(task, context)
    else:
        outcome = module.piece(task, context, step)
    assert isinstance(outcome, StepResult)
    return outcome
