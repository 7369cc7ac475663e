"""Explains which watched names a worker does not serve because the registry does not show them to it.

A registry answers alike for an adapter that was deleted and for one that the worker's token may no longer
read, and it sends no event when a right is lost. An alias that was removed is no problem: its adapter is
still readable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from adaptry.core.errors import InvalidRef, NotFound, PermissionDenied
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.serving.follow.problem_log import ProblemLog
from adaptry.operations.watch import RefPattern
from adaptry.registry.interface import Registry
from adaptry.registry.workers import MOST_PROBLEMS

_KNOWN_FOR = 60.0  # seconds for which the registry is not asked again about an adapter


class LostRefs:
    """`problems`: the reason for each such name, until the registry shows it again; of at most 256 names,
    those watched by name first. `log` gets each once."""

    def __init__(self, registry: Registry, watched: Sequence[RefPattern], log: Callable[[str], None]) -> None:
        self._registry = registry
        self._named = {str(one.ref) for one in watched if one.ref is not None}
        self._log = ProblemLog(log)
        self._asked: dict[AdapterName, tuple[float, bool]] = {}
        self.problems: dict[str, str] = {}

    def update(self, before: Collection[str], meant: Mapping[str, object]) -> None:
        """Compares the names that the registry showed `before` with those that it shows now. Raises as
        `Adapters.get`, except `NotFound` and `PermissionDenied`."""
        missing = (self._named | set(before) | self.problems.keys()) - meant.keys()
        in_order = sorted(missing, key=lambda ref: (ref not in self._named, ref))  # a pattern may lose many
        shown = in_order[:MOST_PROBLEMS]  # a report has room for no more, and each is a request
        self.problems = {ref: reason for ref in shown if (reason := self._reason(ref))}
        for ref, reason in self.problems.items():
            self._log.note(ref, f"{ref}: {reason}")
        for ref in meant:
            self._log.resolve(ref, f"the registry shows {ref} again")
        if not missing:
            self._asked.clear()

    def _reason(self, ref: str) -> str | None:
        """Why the registry does not show the ref; None if its adapter is readable."""
        try:
            name = Ref.parse(ref).name
        except InvalidRef:
            return None
        if self._is_readable(name):
            return None
        return (
            f"the registry does not show {name} to this worker: there is no such adapter, or the worker's"
            " token may not read it. An administrator gives its principal the right with"
            f" `adaptry grant add PRINCIPAL worker {name.namespace}`; a token with other limits has to be"
            " replaced"
        )

    def _is_readable(self, name: AdapterName) -> bool:
        at, is_readable = self._asked.get(name, (None, False))
        if at is None or time.monotonic() - at > _KNOWN_FOR:
            try:
                self._registry.adapters.get(name)
                is_readable = True
            except (NotFound, PermissionDenied):
                is_readable = False
            self._asked[name] = time.monotonic(), is_readable
        return is_readable
