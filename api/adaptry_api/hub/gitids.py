"""Git ids of stored files and folders: clients of the Hub compare them with files on their disks.

A large file is identified by its SHA-256, as in Git LFS, and git itself stores a pointer to it; a small file
has the id of a git blob. Whether a file is large depends only on its name and size, so that answers before
and after an upload agree.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from adaptry.core.digest import Digest

MAX_REGULAR_SIZE = 1 << 20
"""A text of at most this many bytes is a small file."""

_ALWAYS_LARGE = re.compile(
    r".*\.(?:safetensors|model|gguf|bin|pt|pth|ckpt|pkl|npz|npy|onnx|h5"
    r"|zip|gz|tar|zst|png|jpe?g|gif|webp|mp4|mp3|wav)",
    re.IGNORECASE,
)


def is_large(path: str, size: int) -> bool:
    """Whether the file is uploaded separately and identified by its SHA-256."""
    return size > MAX_REGULAR_SIZE or (size > 0 and bool(_ALWAYS_LARGE.fullmatch(path)))


def blob_id(data: bytes) -> str:
    """The id that `git hash-object` gives for these bytes."""
    return _object_id(b"blob", data)


def blob_id_of(chunks: Iterable[bytes], size: int) -> str:
    """Like `blob_id`, for bytes in pieces."""
    hasher = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.hexdigest()


def pointer(sha256: Digest, size: int) -> bytes:
    """The text that git stores instead of a large file (the Git LFS specification, version 1)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256.hex}\nsize {size}\n".encode()


def tree_ids(blobs: Mapping[str, str]) -> dict[str, str]:
    """The id of every folder (`""`: the root), for files given by path with the ids of their blobs."""
    found: dict[str, str] = {}

    def visit(folder: str, paths: Iterable[str]) -> str:
        files: dict[str, str] = {}
        inside: dict[str, list[str]] = {}
        start = len(folder) + 1 if folder else 0
        for path in paths:
            first, slash, _ = path[start:].partition("/")
            if slash:
                inside.setdefault(first, []).append(path)
            else:
                files[first] = blobs[path]
        lines = [(name, f"100644 {name}", id) for name, id in files.items()]
        for name, below in inside.items():
            whole = f"{folder}/{name}" if folder else name
            lines.append((f"{name}/", f"40000 {name}", visit(whole, below)))  # in git's order
        data = b"".join(line.encode() + b"\0" + bytes.fromhex(id) for _, line, id in sorted(lines))
        found[folder] = _object_id(b"tree", data)
        return found[folder]

    visit("", blobs)
    return found


def _object_id(kind: bytes, data: bytes) -> str:
    return hashlib.sha1(b"%s %d\0" % (kind, len(data)) + data, usedforsecurity=False).hexdigest()
