"""A cache of signatures on this machine, with a small file per revision, so that an adapter is read only
once.

A file that is lost, damaged or in another format is computed again. If no file can be written, nothing is
cached.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pydantic import ValidationError

from adaptry.compute.comparison.signature import Signature
from adaptry.core.digest import Digest
from adaptry.core.errors import Unavailable
from adaptry.core.files.atomic_file import atomic_file

_MAX_BYTES = 64 << 10


def load_signature(folder: Path, revision: Digest) -> Signature | None:
    try:
        with _cache_path(folder, revision).open("rb") as file:
            return Signature.model_validate_json(file.read(_MAX_BYTES))
    except (OSError, ValidationError):
        return None


def save_signature(folder: Path, revision: Digest, signature: Signature) -> None:
    place = _cache_path(folder, revision)
    with contextlib.suppress(OSError, Unavailable):
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(place) as file:
            file.write(signature.model_dump_json().encode())


def _cache_path(folder: Path, revision: Digest) -> Path:
    return folder / revision.hex[:2] / f"{revision.hex}.json"
