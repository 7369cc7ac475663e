"""Signatures kept on this machine, a small file for each revision, so that an adapter is read once and not per question.

A convenience that is never needed: a file that is lost, damaged or of another layout is computed again, and where none
can be written nothing is kept.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from pydantic import ValidationError

from adaptry.comparing.signature import Signature
from adaptry.digest import Digest

_LARGEST = 64 << 10


def kept(folder: Path, revision: Digest) -> Signature | None:
    try:
        with _place(folder, revision).open("rb") as file:
            return Signature.model_validate_json(file.read(_LARGEST))
    except (OSError, ValidationError):
        return None


def keep(folder: Path, revision: Digest, signature: Signature) -> None:
    place = _place(folder, revision)
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(".part", place.name, place.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(signature.model_dump_json())
            Path(name).replace(place)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise


def _place(folder: Path, revision: Digest) -> Path:
    return folder / revision.hex[:2] / f"{revision.hex}.json"
