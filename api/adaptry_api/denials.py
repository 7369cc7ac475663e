"""Queues denied requests for the audit log: they are kept in memory, limited in number, and stored a second
later.

A flood of denied requests must neither fill the disk nor delay writers, and the time for storing one must not
reveal why the request was denied. Requests beyond the limits are only counted, and one entry per minute has
the counts. Requests that are not stored yet are lost if the process is killed.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.types import Scope

from adaptry.core.errors import AdaptryError, NotFound
from adaptry.core.identity import ANONYMOUS, Identity
from adaptry.storage.catalog.audit_log.recorder import AuditTarget, entry_values
from adaptry_api.route_actions import action_of

WINDOW = timedelta(minutes=1)
MAX_DENIALS = 30
"""Maximum number of denied requests recorded in a window."""
MAX_DENIALS_OF_ONE = 10
"""Maximum number of those for one principal."""
_COUNTED = 24  # principals and actions that a summary names
_REASON = "denied_because"  # in the state of a request
_IS_HIDDEN = "denied_as_absent"
_HIDDEN = "the adapter is private, so the answer was 404"
_IS_DENIED = "denied_by_grant"
_FORM_ACTION = "form_action"
_DENIED = frozenset({401, 403})
_SERVER = Identity("server")


def set_denial_reason(scope: Scope, error: AdaptryError) -> None:
    """Keeps the error message for the entry, and for a hidden adapter the fact that it exists."""
    state = scope.setdefault("state", {})
    state[_REASON] = error.public_message
    state[_IS_HIDDEN] = isinstance(error, NotFound) and error.is_hidden


def set_form_action(scope: Scope, action: str) -> None:
    """Keeps which of a page's forms was submitted, from its field `do`."""
    scope.setdefault("state", {})[_FORM_ACTION] = action


def mark_denied(scope: Scope, error: AdaptryError) -> None:
    """Records the request as denied, although its status is different, as OAuth requires."""
    set_denial_reason(scope, error)
    scope["state"][_IS_DENIED] = True


class DenialRecorder:
    """Collects the denied requests of one server process."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[dict[str, Any]] = []
        self._began = clock()
        self._recorded: Counter[str] = Counter()
        self._suppressed: Counter[tuple[str, str]] = Counter()

    def note(self, scope: Scope, status: int) -> None:
        """Queues a finished request if it was denied. Reads without a token are not recorded."""
        state: Mapping[str, Any] = scope.get("state", {})
        is_denied = status in _DENIED or state.get(_IS_DENIED, False)
        if not is_denied and not (status == 404 and state.get(_IS_HIDDEN)):
            return
        is_look = scope["method"] in ("GET", "HEAD")
        if status == 401 and is_look and not any(name == b"authorization" for name, _ in scope["headers"]):
            return
        identity = state.get("identity") or ANONYMOUS
        path = getattr(scope.get("route"), "path", "")
        action = action_of(scope["method"], path, state.get(_FORM_ACTION, ""))
        reason = _HIDDEN if status == 404 else str(state.get(_REASON, "the request was refused"))
        now = self._clock()
        with self._lock:
            self._end_window(now)
            if self._recorded.total() >= MAX_DENIALS or self._recorded[identity.name] >= MAX_DENIALS_OF_ONE:
                self._suppressed[identity.name, action] += 1
                return
            self._recorded[identity.name] += 1
            target, request = _target(scope), state.get("request_id")
            self._waiting.append(entry_values(identity, action, target, now, request, reason=reason))

    def take(self) -> list[dict[str, Any]]:
        """Returns the entries to store now. (`Any`: columns of a row.)"""
        with self._lock:
            self._end_window(self._clock())
            taken, self._waiting = self._waiting, []
            return taken

    def _end_window(self, now: datetime) -> None:
        if now - self._began < WINDOW:
            return
        if self._suppressed:
            counts = {
                f"{principal} {what}": many
                for (principal, what), many in self._suppressed.most_common(_COUNTED)
            }
            facts = {"requests": self._suppressed.total(), "since": self._began, **counts}
            target = AuditTarget("audit")
            self._waiting.append(entry_values(_SERVER, "audit.suppress", target, now, None, after=facts))
        self._began = now
        self._recorded.clear()
        self._suppressed.clear()


def _target(scope: Scope) -> AuditTarget:
    """The target of the request, from its path; the namespace is only included if it has the form of a
    name."""
    given = scope.get("path_params", {})
    namespace, name = given.get("namespace"), given.get("name")
    if not isinstance(namespace, str):
        return AuditTarget(str(scope.get("path", ""))[:300])
    selector = next((given[key] for key in ("alias", "selector", "revision") if key in given), None)
    resource = f"{namespace}/{name}" if name is not None else namespace
    return AuditTarget(resource, namespace[:96], str(selector) if selector is not None else None)
