"""Named places where a test lets the process die, to see what a power cut would leave behind.

`ADAPTRY_FAILPOINT=blobs.before_rename` kills the process with SIGKILL when it gets there. Unarmed, reaching
a place is one look into the environment, a few times a push. Before the name, `parent:` takes the
process that started this one along, and `stop:` stops this one there instead, until somebody lets it go on.

`ADAPTRY_FAILPOINT_GATE=folder` has only the thread wait that comes first to a place, of all processes that
share the gate, and only while the place is named in the folder: so processes can be disturbed that were not
started for it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import MutableMapping
from pathlib import Path

VARIABLE = "ADAPTRY_FAILPOINT"
GATE = "ADAPTRY_FAILPOINT_GATE"
"""A folder: `place` names where to wait; a waiter writes its process id into `here` until that is removed."""
NAMES = (
    "uploads.after_open",
    "blobs.before_fsync",
    "blobs.before_rename",
    "blobs.after_rename",
    "uploads.after_publish",
    "revisions.before_rows",
    "revisions.before_commit",
    "revisions.after_commit",
)
"""On the way of a push."""
FILE = ("atomic_file.before_rename",)
"""On the way of a file that is to appear whole, such as a bundle."""
RUNNER = (
    "runner.after_hello",
    "runner.after_feed",
    "runner.before_begin",
    "runner.after_begin",
    "runner.concluded",
    "runner.before_finish",
    "runner.after_finish",
)
"""On the way of a job, in who runs it."""
STEPS = (
    "child.opened",
    "merge.planned",
    "merge.stored",
    "merge.before_adoption",
    "merge.adopted",
)
"""And in the process of a step."""
GC_POINTS = (
    "gc.after_survey",
    "gc.after_marks",
    "gc.after_rows",
    "gc.after_going",
    "gc.after_bytes",
    "gc.after_all",
)
"""On the way of a sweep."""
MEND_POINTS = (
    "mend.after_manifest",
    "mend.after_aside",
    "mend.after_upload",
    "mend.after_rebuild",
)
"""On the way of a mend, besides those of the pushes that it is made of."""


def reach(name: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Does not come back if `name` is the armed place, or not before someone says SIGCONT."""
    armed = environ.get(VARIABLE)
    if armed == f"stop:{name}":
        del environ[VARIABLE]  # once: whoever goes on passes the place again
        os.kill(os.getpid(), signal.SIGSTOP)
    if GATE in environ:
        _wait_at(Path(environ[GATE]), name)
    if armed == f"parent:{name}":
        os.kill(os.getppid(), signal.SIGKILL)
    if armed in (name, f"parent:{name}"):
        os.kill(os.getpid(), signal.SIGKILL)


def _wait_at(folder: Path, name: str) -> None:
    try:
        if (folder / "place").read_text() != name:
            return
        with (folder / "here").open("x") as file:
            file.write(f"{os.getpid()}\n")
    except (FileNotFoundError, FileExistsError):
        return  # no place is named, or somebody came before
    while (folder / "here").exists():
        time.sleep(0.01)
