"""Whether the registry answers a worker and accepts its reports. Each change is logged once.

A registry that cannot be reached, or a token that is no longer valid, is no reason to unload anything. A
worker without the right to report continues, too, but loads nothing new: a recall would not find it.
"""

from __future__ import annotations

from collections.abc import Callable

from adaptry.core.errors import AdaptryError, PermissionDenied, Unauthenticated, Unavailable
from adaptry.integrations.serving.follow.problem_log import ProblemLog

UNREACHABLE = (Unavailable, Unauthenticated)
"""Errors of a registry that cannot be reached. An expired token counts too: it is no reason to unload."""
_REPORTS = "reports"


class RegistryStatus:
    """`is_down`: the registry failed to answer its last request. `error`: why a request of this pass
    failed.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._denials = ProblemLog(log)
        self.is_down = False
        self.error: AdaptryError | None = None

    def note_down(self, error: AdaptryError) -> None:
        """Records that the registry did not answer."""
        if not self.is_down:
            restart = "restart follow with a new token; " if isinstance(error, Unauthenticated) else ""
            self._log(f"{error.message} ({restart}meanwhile, loaded adapters stay loaded)")
        self.is_down, self.error = True, error

    def note_answer(self) -> None:
        """Records that the registry answered."""
        if self.is_down:
            self._log("the registry answers again")
        self.is_down = False

    def is_accepted(self, send: Callable[[], None]) -> bool:
        """Sends a report. Returns whether the registry accepts it, and raises all of its errors but
        `PermissionDenied`."""
        try:
            send()
        except PermissionDenied as error:
            self._denials.note(_REPORTS, f"{error.message} (until then, nothing new is loaded)")
            self.error = error
            return False
        self._denials.resolve(_REPORTS, "the registry accepts this worker's reports again")
        return True
