"""A clock that a test sets forward or back for a runner and its steps (libfaketime)."""

from __future__ import annotations

from pathlib import Path

_LIBRARY = "/usr/lib/*/faketime/libfaketime.so.1"
DAY = 86_400
REMEDY = "libfaketime is not installed: apt-get install faketime"
_SITE = """\
import os, sys
if "LD_PRELOAD" not in os.environ:
    os.environ |= {environ!r}
    os.execv(sys.executable, sys.orig_argv)
"""


def library() -> str | None:
    """The path of libfaketime."""
    return next(map(str, sorted(Path("/").glob(_LIBRARY[1:]))), None)


class Clock:
    """The wall clock of every process that is started with `environ`; the steady clock is not affected."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._file = folder / "clock"
        self.put(0)
        faked = {
            "LD_PRELOAD": library() or "",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        # A runner does not pass these variables to its steps, so each step sets them when it starts.
        (folder / "sitecustomize.py").write_text(_SITE.format(environ=faked))
        self.environ = {**faked, "PYTHONPATH": str(folder)}

    def put(self, seconds: int) -> None:
        """Sets the clock to this many seconds ahead of or behind the machine's clock, from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)
