"""Problems of names that are not served as they should be, for the worker's report."""

from __future__ import annotations

from adaptry.core.errors import AdaptryError

_MAX_PROBLEMS = 256


class NameProblems:
    """The latest problem of each name, for at most 256 names, since clients may request any name."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    @property
    def reasons(self) -> dict[str, str]:
        """The reason of each problem, by name."""
        return dict(self._reasons)

    def record_refused(self, name: str, error: AdaptryError) -> bool:
        """The name is refused. Returns False if that is its latest problem already."""
        is_known = self._reasons.get(name) == error.message
        self._record(name, error.message)
        return not is_known

    def record_outdated(self, name: str, error: AdaptryError) -> bool:
        """The name still has its previous version, because the current one cannot be prepared. Returns False
        if that is its latest problem already."""
        reason = f"the previous version is still served: {error.message}"
        is_known = self._reasons.get(name) == reason
        self._record(name, reason)
        return not is_known

    def resolve(self, name: str) -> None:
        self._reasons.pop(name, None)

    def clear(self) -> None:
        self._reasons.clear()

    def _record(self, name: str, reason: str) -> None:
        if name in self._reasons or len(self._reasons) < _MAX_PROBLEMS:
            self._reasons[name] = reason
