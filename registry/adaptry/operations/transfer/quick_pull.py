"""Pulls a version from a folder's registry without SQLAlchemy and pydantic, whose imports take most of a
command's time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.core.progress import Progress, no_progress
from adaptry.operations.transfer.retry import DEFAULT_RETRY
from adaptry.operations.transfer.revision_download import fetch_version

if TYPE_CHECKING:
    from adaptry.core.refs import Ref
    from adaptry.registry.interface import Registry
    from adaptry.registry.quick_values import VersionToPull


def try_fast_pull(
    registry: Registry, ref: Ref, folder: Path, progress: Progress = no_progress
) -> VersionToPull | None:
    """Pulls like `pull`, with the same errors. If the registry, the version or the folder is unusual, does
    nothing and returns None; the caller then uses `pull`.
    """
    target = folder.expanduser()
    version = None if os.path.lexists(target) else registry.try_find(ref)
    if version is not None:
        fetch_version(registry, version, version.files, target, False, progress, DEFAULT_RETRY)
    return version
