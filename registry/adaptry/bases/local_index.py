"""The folders of bases on this machine: a small file of id → folders, so that a merge needs only a name.

The file is only a cache. Code that opens a folder from it first computes the fingerprint. If the file is lost
or damaged, `adaptry base add` adds a folder again. A base may have several folders, the most recent first.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, Unavailable
from adaptry.core.files.atomic_file import atomic_file

_FILE = "base_places.json"
_MAX_FOLDERS = 8  # folders of one base
_LIMITS = strictjson.JsonLimits(size=4 << 20, depth=3, nodes=50_000)


def record_path(cache: Path, base: Digest, folder: Path) -> None:
    """Records that `base` is in `folder`. If `cache` cannot be written, does nothing."""
    known = _read(cache)
    place = str(folder.resolve())
    others = [other for other in known.get(str(base), []) if other != place]
    known[str(base)] = [place, *others][:_MAX_FOLDERS]
    with contextlib.suppress(OSError, Unavailable):
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_file(cache / _FILE) as file:
            file.write(json.dumps(known, indent=1, sort_keys=True).encode())


def find_paths(cache: Path, base: Digest) -> tuple[Path, ...]:
    """Recorded folders of `base`, the most recent first. The caller must check their current contents."""
    return tuple(Path(folder) for folder in _read(cache).get(str(base), []))


def _read(cache: Path) -> dict[str, list[str]]:
    try:
        found = strictjson.loads((cache / _FILE).read_bytes(), _LIMITS, _FILE)
    except (OSError, Invalid):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        base: [folder for folder in folders if isinstance(folder, str)]
        for base, folders in found.items()
        if isinstance(folders, list)
    }
