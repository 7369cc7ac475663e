"""Where bases lie on this machine: a small file of id → folder, so that a name is enough to merge.

A convenience that is never believed: whoever opens a remembered folder fingerprints it first, and a file
that is lost or damaged costs one `adaptry base add`.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from adaptry import strictjson
from adaptry.digest import Digest
from adaptry.errors import Invalid

_FILE = "base_places.json"
_LIMITS = strictjson.Limits(size=4 << 20, depth=2, nodes=20_000)


def remember(cache: Path, base: Digest, folder: Path) -> None:
    """Says that `base` lies in `folder`. Where `cache` cannot be written nothing is remembered."""
    known = {**_read(cache), str(base): str(folder.resolve())}
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(".part", _FILE, cache)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(known, file, indent=1, sort_keys=True)
            Path(name).replace(cache / _FILE)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise


def recall(cache: Path, base: Digest) -> Path | None:
    """The folder last remembered for `base`, if it is still a folder."""
    folder = _read(cache).get(str(base))
    return Path(folder) if folder and Path(folder).is_dir() else None


def _read(cache: Path) -> dict[str, str]:
    try:
        found = strictjson.loads((cache / _FILE).read_bytes(), _LIMITS, _FILE)
    except (OSError, Invalid):
        return {}
    if not isinstance(found, dict):
        return {}
    return {base: folder for base, folder in found.items() if isinstance(folder, str)}
