"""Transfers adapters: push, pull and copy between folders and registries.

`push_pull` is the entry point, and `drafts` the one for drafts. `files` transfers a revision's files; `file_upload` and
`file_download` transfer one file, verified and resumable; `retry` is the retry policy; `revision_content` reads a revision's
files without a download.
"""

from adaptry.operations.transfer.push_pull import copy, open_revision, pull, push, upload

__all__ = ["copy", "open_revision", "pull", "push", "upload"]
