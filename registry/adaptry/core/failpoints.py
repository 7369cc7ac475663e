"""Named places in the code where a test can kill or stop the process, as a power cut would.

`ADAPTRY_FAILPOINT=blobs.before_rename` kills the process with SIGKILL when it reaches that place. When the
variable is unset, a place costs one lookup in the environment, a few times per push. The prefix `parent:`
also kills the process that started this one. The prefix `stop:` sends SIGSTOP to this process instead of
killing it, until it receives SIGCONT.

`ADAPTRY_FAILPOINT_GATE=folder` stops only a thread: the first one that reaches a place named in the
folder, of all processes that share the folder. A test can thereby disturb processes that it did not
start with a failpoint.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import MutableMapping
from pathlib import Path

VARIABLE = "ADAPTRY_FAILPOINT"
GATE = "ADAPTRY_FAILPOINT_GATE"
"""The variable that names the gate's folder. The file `place` in it names the place where a thread waits; the
waiting thread writes its process id into the file `here`, and continues when that file is removed.
"""
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
"""Places that are passed by a push that uploads its files one by one."""
WITH_FILES = tuple(name for name in NAMES if not name.startswith("uploads."))
"""Places that are passed by a push that sends its files in the same request."""
FILE = ("atomic_file.before_rename",)
"""Places in writing a file that appears complete or not at all, such as a bundle."""
RUNNER = (
    "runner.after_registration",
    "runner.after_queueing",
    "runner.before_begin",
    "runner.after_begin",
    "runner.concluded",
    "runner.before_finish",
    "runner.after_finish",
)
"""Places that the runner of a job passes."""
STEPS = (
    "child.opened",
    "merge.planned",
    "merge.stored",
    "merge.before_adoption",
    "merge.adopted",
)
"""Places that the process of a job's step passes."""
GC_POINTS = (
    "gc.after_scan",
    "gc.after_marks",
    "gc.after_rows",
    "gc.after_claim",
    "gc.after_bytes",
    "gc.after_all",
)
"""Places that a sweep passes."""
REPAIR_POINTS = (
    "repair.after_manifest",
    "repair.after_aside",
    "repair.after_upload",
    "repair.after_rebuild",
)
"""Places that a repair passes, in addition to those of its uploads."""
HOTSWAP = ("hotswap.checked",)
"""The place between the checks of a hotswap and its first change."""
AUDIT_POINTS = ("audit.after_seal",)
"""Places that the sequencer of the audit log passes."""


def reach(name: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Kills or stops this process if `name` is the armed place."""
    armed = environ.get(VARIABLE)
    if armed == f"stop:{name}":
        del environ[VARIABLE]  # trigger only once: a process that continues may pass this place again
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
        return  # no failpoint is set, or another thread reached it first
    while (folder / "here").exists():
        time.sleep(0.01)
