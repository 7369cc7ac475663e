"""Named places where a test lets the process die, to see what a power cut would leave behind.

`ADAPTRY_FAILPOINT=blobs.before_rename` kills the process with SIGKILL when it gets there; with
`ADAPTRY_FAILPOINT_SIGNAL=SIGSTOP` it stands still there, once, while another goes by. Unarmed, reaching a place is one
look into the environment, a few times a push.
"""

from __future__ import annotations

import os
import signal
from collections.abc import MutableMapping

VARIABLE = "ADAPTRY_FAILPOINT"
SIGNAL = "ADAPTRY_FAILPOINT_SIGNAL"
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
OF_A_SWEEP = (
    "gc.after_survey",
    "gc.after_marks",
    "gc.after_rows",
    "gc.after_going",
    "gc.after_bytes",
    "gc.after_all",
)


def reach(name: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Does not come back if `name` is the armed place, or not before someone says SIGCONT."""
    if environ.get(VARIABLE) == name:
        kind = environ.get(SIGNAL, "SIGKILL")
        del environ[VARIABLE]
        os.kill(os.getpid(), signal.Signals[kind])
