"""Logs each problem once: when it begins, when its reason changes, and when it is over. Passes repeat every
second while there is a problem.
"""

from __future__ import annotations

from collections.abc import Callable, Collection


class ProblemLog:
    """Writes one line for each change to `log`. The subject of a problem is, for example, a name."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._last: dict[str, str] = {}

    def note(self, subject: str, line: str) -> None:
        """Logs the problem of a subject, unless it was logged before."""
        if self._last.get(subject) != line:
            self._log(line)
        self._last[subject] = line

    def resolve(self, subject: str, line: str) -> None:
        """Logs that the subject's problem is over, if it had one."""
        if self._last.pop(subject, None) is not None:
            self._log(line)

    def retain(self, subjects: Collection[str]) -> None:
        """Forgets the problems of all other subjects."""
        self._last = {subject: line for subject, line in self._last.items() if subject in subjects}
