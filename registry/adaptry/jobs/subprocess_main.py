"""`python -m adaptry.jobs.child`: the process that does one step of a job, and nothing else.

It reads its paper from standard input and says how it goes on standard output. The input stays open for as long as its runner
lives and wants it: at its end the process dies, whatever it is doing, so that no step outlives who asked for it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TextIO

from adaptry.core.errors import AdaptryError
from adaptry.core.failpoints import reach
from adaptry.core.identity import Identity
from adaptry.jobs.context import Desk
from adaptry.jobs.ipc import Line, Outcome, Paper
from adaptry.registry.jobs_values.records import Fault
from adaptry.registry.jobs_values.tasks import parse_task
from adaptry.storage.catalog import job_steps
from adaptry.storage.connect import open_local

_EVERY = 0.5  # seconds between two lines about how far it is
_FAILED = "a fault in adaptry; the job's log has the details"


def main() -> None:
    said = _Said(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # whatever a library prints is part of the story
    paper = Paper.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_until_unwanted, daemon=True).start()
    try:
        said.line(Line(what="outcome", outcome=_done(paper, said)))
    except AdaptryError as error:
        if error.told != error.message:
            said.line(Line(what="aside", text=error.message))
        said.line(Line(what="fault", fault=Fault(code=error.code, message=error.told)))
    except Exception as error:  # noqa: BLE001  (whatever it is, the job has failed, and its log says how)
        said.say(traceback.format_exc())
        fault = Fault(code=AdaptryError.code, message=f"{type(error).__name__}: {error} ({_FAILED})"[:1000])
        said.line(Line(what="fault", fault=fault))


def _done(paper: Paper, said: _Said) -> Outcome:
    from adaptry.jobs.dispatch import do  # it brings all that computes

    place = paper.place
    registry = open_local(place.folder, catalog=place.catalog, blobs=place.blobs, blob_cache=place.blob_cache)
    fenced = job_steps.Fenced(
        registry.catalog, lambda tx: job_steps.hold(tx, paper.job, paper.step, paper.turn)
    )
    # The rights of who asked, whatever the runner's are; and every change only while the step is ours.
    registry.catalog = fenced
    acting = registry.on_behalf_of(Identity(paper.by, paper.role, paper.namespaces))
    reach("child.opened")
    desk = Desk(
        acting,
        paper.before,
        paper.device,
        Path(paper.scratch),
        paper.remotes,
        said.stage,
        said.say,
    )
    return do(paper.kind, parse_task(paper.kind, paper.task), paper.step, desk)


class _Said:
    """What the child tells its runner."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._told = 0.0

    def line(self, line: Line) -> None:
        with self._lock:
            self._out.write(line.model_dump_json(exclude_defaults=True) + "\n")
            self._out.flush()

    def say(self, text: str) -> None:
        self.line(Line(what="say", text=text))

    def stage(self, text: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= _EVERY or done == total:
            self._told = now
            self.line(Line(what="stage", text=text, done=done, total=total))


def _until_unwanted() -> None:
    while sys.stdin.readline():
        continue
    os._exit(3)


if __name__ == "__main__":
    main()
