"""Adapters on the move: push, pull and copy, over any two registries.

`verbs` is what everyone calls, and `drafts` for what is no version; `files` moves a revision's files, `uploading` and `downloading` move one file, verified and resumed; `retrying` says how
patiently; `remote` reads a revision where it is.
"""

from adaptry.operations.transfer.push_pull import copy, open_revision, pull, push, upload

__all__ = ["copy", "open_revision", "pull", "push", "upload"]
