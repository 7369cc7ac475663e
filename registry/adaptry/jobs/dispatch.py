"""Where each kind of job is done: a table, beside that of what can be asked.

A kind is one function of its task and the desk; or a module with three: `start` cuts the job into pieces, `piece` does one of
them, wherever there is room, and `end` puts what they came to together. Only the one that is needed is loaded.
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
    "convert": "derive_jobs:convert",
    "export": "derive_jobs:export",
    "fingerprint": "maintenance_jobs:fingerprint",
    "verify": "maintenance_jobs:verify",
    "gc": "maintenance_jobs:collect",
    "replicate": "maintenance_jobs:replicate",
}
"""`module` of this package for three steps, `module:function` for one."""


def run_handler(kind: str, task: JobTask, step: str, context: JobContext) -> StepResult:
    """Does one step of a job, and says what it came to."""
    place, _, only = HANDLERS[kind].partition(":")
    module = importlib.import_module(f"adaptry.jobs.{place}")
    if only or step in ("start", "end"):
        outcome = getattr(module, only or step)(task, context)
    else:
        outcome = module.piece(task, context, step)
    assert isinstance(outcome, StepResult)
    return outcome
