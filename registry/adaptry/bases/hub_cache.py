"""Copies of a model in the cache of Hugging Face's Hub clients on this machine, found by repository name.

A repository's content can change, so its name does not identify a copy: callers compare the fingerprint. Only
a commit identifies the content of a snapshot.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from adaptry.core.lazy_pattern import lazy_pattern

_REPOSITORY = lazy_pattern(r"[\w.-]+(?:/[\w.-]+)?")
_COMMIT = lazy_pattern(r"[0-9a-f]{40}")


def hub_snapshots(name: str, environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """The folders of `name`'s snapshots, the most recent first; empty if it is not the name of a repository.

    Source: huggingface_hub's `constants.py` (the folder) and "Understand caching" (its contents).
    """
    if not _REPOSITORY.fullmatch(name):
        return ()
    folder = _cache_folder(environ) / f"models--{name.replace('/', '--')}" / "snapshots"
    try:
        found = [(entry.stat().st_mtime, entry) for entry in folder.iterdir() if entry.is_dir()]
    except OSError:
        return ()
    return tuple(entry for _, entry in sorted(found, reverse=True))


def hub_snapshot(name: str, commit: object) -> Path | None:
    """The snapshot of a commit; None if it is not here, or `commit` is a branch or a tag, which can move."""
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        return None
    return next((folder for folder in hub_snapshots(name) if folder.name == commit), None)


def _cache_folder(environ: Mapping[str, str]) -> Path:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(variable):
            return Path(environ[variable]).expanduser()
    if environ.get("HF_HOME"):
        return Path(environ["HF_HOME"]).expanduser() / "hub"
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"
