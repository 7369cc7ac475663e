"""Where bases lie on this machine: a small file of id → folders, so that a name is enough to merge.

A convenience that is never believed: whoever opens a remembered folder fingerprints it first, and a file
that is lost or damaged costs one `adaptry base add`. Several copies of a base are several folders, the one
seen last first.
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
_MOST = 8  # folders of one base
_LIMITS = strictjson.JsonLimits(size=4 << 20, depth=3, nodes=50_000)


def record_path(cache: Path, base: Digest, folder: Path) -> None:
    """Says that `base` lies in `folder`. Where `cache` cannot be written nothing is remembered."""
    known = _read(cache)
    place = str(folder.resolve())
    others = [other for other in known.get(str(base), []) if other != place]
    known[str(base)] = [place, *others][:_MOST]
    with contextlib.suppress(OSError, Unavailable):
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_file(cache / _FILE) as file:
            file.write(json.dumps(known, indent=1, sort_keys=True).encode())


def find_paths(cache: Path, base: Digest) -> tuple[Path, ...]:
    """Folders remembered for `base`, last seen first; the caller finds out what is in them now."""
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
