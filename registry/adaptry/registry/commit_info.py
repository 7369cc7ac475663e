"""Values of commits and branches, as the registry and its clients exchange them.

As in `records`, the pydantic models are imported when one of them is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptry.core.value import FreeText, limited, value
from adaptry.registry.records import Record

if TYPE_CHECKING:
    from adaptry.registry.commit_models import BranchInfo, CommitInfo, CommitResult

__all__ = ["BranchInfo", "CommitInfo", "CommitNote", "CommitResult"]

_MAX_TITLE = 512
_MAX_MESSAGE = 65_536


def __getattr__(name: str) -> Any:
    """A value of `commit_models`. (`Any`: classes.)"""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from adaptry.registry import commit_models

    return vars(commit_models)[name]


@value
class CommitNote(Record):
    """The message of a commit; the registry records author and time."""

    title: FreeText = limited(min_length=1, max_length=_MAX_TITLE)
    message: FreeText = limited(default="", max_length=_MAX_MESSAGE)

    def _is_plain(self) -> bool:
        if type(self.title) is not str or type(self.message) is not str or "\0" in self.title + self.message:
            return False
        return 1 <= len(self.title) <= _MAX_TITLE and len(self.message) <= _MAX_MESSAGE
