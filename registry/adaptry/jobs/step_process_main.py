"""`python -m adaptry.jobs.step_process_main`: the process that runs one step of a job.

It reads a `StepRequest` from standard input and writes `ChildMessage` lines to standard output. The runner
keeps the input open during the step, and writes the number of processors that the step may use whenever it
changes. When the input closes, the process exits immediately, so that no step outlives its runner.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TextIO

from adaptry.core import tracing
from adaptry.core.errors import AdaptryError
from adaptry.core.failpoints import reach
from adaptry.core.option_names import ArgumentNames
from adaptry.core.request_id import REQUEST_ID
from adaptry.core.telemetry import exporting_telemetry
from adaptry.jobs.context import JobContext, Processors
from adaptry.jobs.ipc import ChildMessage, StepRequest, StepResult
from adaptry.registry.job_types.records import JobFailure
from adaptry.registry.job_types.tasks import argument_names, parse_task
from adaptry.storage.catalog import job_steps
from adaptry.storage.catalog.rights import decode_rights
from adaptry.storage.connect import open_local

_PROGRESS_INTERVAL = 0.5  # seconds between two progress messages
_FAILED = "a bug in Adaptry; the job's log has the details"


def main() -> None:
    pipe = _RunnerPipe(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # output that libraries print is written to the job's log
    request = StepRequest.model_validate_json(sys.stdin.readline())
    pipe.names = argument_names(request.kind)
    processors = Processors()
    threading.Thread(target=_follow_runner, args=(processors,), daemon=True).start()
    try:
        with exporting_telemetry("adaptry-job"), tracing.span("job step process", parent=request.trace):
            outcome = _run_step(request, pipe, processors)
        pipe.send(ChildMessage(what="outcome", outcome=outcome))
    except AdaptryError as error:
        if error.public_message != error.message:
            pipe.send(ChildMessage(what="aside", text=error.message))
        message = pipe.names.in_sentence(error.public_message)
        pipe.send(ChildMessage(what="fault", fault=JobFailure(code=error.code, message=message)))
    except Exception as error:  # noqa: BLE001  (any exception fails the job; its log has the traceback)
        pipe.log(traceback.format_exc())
        fault = JobFailure(
            code=AdaptryError.code, message=f"{type(error).__name__}: {error} ({_FAILED})"[:1000]
        )
        pipe.send(ChildMessage(what="fault", fault=fault))


def _run_step(request: StepRequest, pipe: _RunnerPipe, processors: Processors) -> StepResult:
    from adaptry.jobs.dispatch import run_handler  # imports the libraries that compute

    place = request.place
    registry = open_local(place.folder, catalog=place.catalog, blobs=place.blobs, blob_cache=place.blob_cache)
    fenced = job_steps.FencedCatalog(
        registry.catalog, lambda tx: job_steps.require_current(tx, request.job, request.step, request.attempt)
    )
    # The submitter's rights, not the runner's; and every change is fenced to the current attempt.
    registry.context.catalog = fenced
    REQUEST_ID.set(request.job)
    acting = registry.on_behalf_of(decode_rights(request.by, request.rights))
    reach("child.opened")
    context = JobContext(
        acting,
        request.before,
        request.device,
        Path(request.scratch),
        request.remotes,
        pipe.report_progress,
        pipe.log,
        processors,
    )
    return run_handler(request.kind, parse_task(request.kind, request.task), request.step, context)


class _RunnerPipe:
    """Sends messages to the runner. `names` are the fields that error messages name instead of options."""

    def __init__(self, out: TextIO) -> None:
        self.names = ArgumentNames({})
        self._out = out
        self._lock = threading.Lock()
        self._progress_sent_at = 0.0

    def send(self, line: ChildMessage) -> None:
        with self._lock:
            self._out.write(line.model_dump_json(exclude_defaults=True) + "\n")
            self._out.flush()

    def log(self, text: str) -> None:
        self.send(ChildMessage(what="say", text=self.names.in_sentence(text)))

    def report_progress(self, text: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._progress_sent_at >= _PROGRESS_INTERVAL or done == total:
            self._progress_sent_at = now
            self.send(ChildMessage(what="stage", text=text, done=done, total=total))


def _follow_runner(processors: Processors) -> None:
    while line := sys.stdin.readline():
        processors.count = int(line)
    os._exit(3)


if __name__ == "__main__":
    main()
