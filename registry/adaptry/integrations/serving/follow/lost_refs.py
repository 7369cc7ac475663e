"""Explains which watched names a worker does not serve because the registry does not show them to it.

A registry answers alike for an adapter that was deleted and for one that the worker's token may no longer
read, and it sends no event when a right is lost. So the registry is also asked whether the token may read an
adapter of that name: if so, there is no such adapter. A name that was matched by a pattern is then not a
problem, as if its alias had been removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

from adaptry.core.errors import Conflict, Invalid, InvalidRef, NotFound, PermissionDenied
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.serving.follow.problem_log import ProblemLog
from adaptry.operations.watch import RefPattern
from adaptry.registry.access import AccessQuery
from adaptry.registry.interface import Registry
from adaptry.registry.workers import MAX_PROBLEMS

_KNOWN_FOR = 60.0  # seconds for which the registry is not asked again about an adapter
Access = Literal["readable", "absent", "not shown"]


class LostRefs:
    """`problems`: the reason for each such name, until the registry shows it again; at most 256 names,
    beginning with those that are watched by name. `log` gets each problem once."""

    def __init__(
        self, registry: Registry, worker: str, watched: Sequence[RefPattern], log: Callable[[str], None]
    ) -> None:
        self._registry, self._worker = registry, worker
        self._named = {str(one.ref) for one in watched if one.ref is not None}
        self._log = ProblemLog(log)
        self._asked: dict[AdapterName, tuple[float, Access]] = {}
        self.problems: dict[str, str] = {}

    def update(self, before: Collection[str], meant: Mapping[str, object]) -> None:
        """Compares the names that the registry showed `before` with those that it shows now. Raises the
        errors of `Adapters.get`, except `NotFound` and `PermissionDenied`."""
        missing = (self._named | set(before) | self.problems.keys()) - meant.keys()
        in_order = sorted(missing, key=lambda ref: (ref not in self._named, ref))  # a pattern may lose many
        shown = in_order[:MAX_PROBLEMS]  # a report has room for no more, and each is a request
        self.problems = {ref: reason for ref in shown if (reason := self._reason(ref))}
        for ref, reason in self.problems.items():
            self._log.note(ref, f"{ref}: {reason}")
        for ref in meant:
            self._log.resolve(ref, f"the registry shows {ref} again")
        if not missing:
            self._asked.clear()

    def _reason(self, ref: str) -> str | None:
        """Why the registry does not show the ref; None if this is not a problem."""
        try:
            name = Ref.parse(ref).name
        except InvalidRef:
            return None
        access = self._access(name)
        if access == "readable" or (access == "absent" and ref not in self._named):
            return None
        if access == "absent":
            return (
                f"the registry has no adapter {name}: it was deleted or renamed, or has another name. Publish"
                " it, or start this worker with other names (--watch, --preload, --pin)"
            )
        return (
            f"the registry does not show {name} to this worker: there is no such adapter, or the worker's"
            " token may not read it. An administrator gives its principal the right with"
            f" `adaptry grant add PRINCIPAL worker {name.namespace}`; a token with other limits has to be"
            " replaced"
        )

    def _access(self, name: AdapterName) -> Access:
        asked = self._asked.get(name)
        if asked is None or time.monotonic() - asked[0] > _KNOWN_FOR:
            asked = self._asked[name] = time.monotonic(), self._ask(name)
        return asked[1]

    def _ask(self, name: AdapterName) -> Access:
        try:
            self._registry.adapters.get(name)
        except (NotFound, PermissionDenied):
            return "absent" if self._may_read(name) else "not shown"
        return "readable"

    def _may_read(self, name: AdapterName) -> bool:
        """Whether the worker's token may read a private adapter of that name, whether there is one or not.
        False if that is unknown: before the worker's first report, and with an older server."""
        try:
            owner = self._registry.workers.get(self._worker).owner
            question = AccessQuery(principal=owner, action="read", ref=str(name))
            return self._registry.grants.explain(question).is_allowed
        except (NotFound, PermissionDenied, Conflict, Invalid):
            return False
