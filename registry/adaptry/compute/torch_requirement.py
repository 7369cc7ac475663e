"""Imports torch, or reports that it is not installed."""

from __future__ import annotations

from adaptry.core.errors import MissingDependency


def require_torch(purpose: str) -> None:
    """Raises `MissingDependency`, which begins with `purpose`, if torch is not installed. If torch is
    installed but cannot be imported, torch's own error is raised, because installing it would not help.
    """
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingDependency(f"{purpose}: pip install 'adaptry[torch]'") from None
