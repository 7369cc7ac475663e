"""Transfers adapters: push, pull and copy between folders and registries.

`push_pull` is the entry point; `quick_pull` handles most pulls of the command line, and `drafts` handles
drafts. `files` hashes and uploads a revision's files, `revision_download` downloads them; `file_upload` and
`file_download` transfer one file, verified and resumable; `retry` is the retry policy; `revision_content`
reads a revision's files without a download.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptry.operations.transfer.push_pull import copy, open_revision, pull, push, upload

__all__ = ["copy", "open_revision", "pull", "push", "upload"]


def __getattr__(name: str) -> Any:
    """Imports `push_pull` when it is needed: a plain pull needs none of it. (`Any`: functions.)"""
    if name in __all__:
        from adaptry.operations.transfer import push_pull

        return getattr(push_pull, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
