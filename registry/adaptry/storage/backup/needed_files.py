"""The files that a copied catalog needs: every owner's files, and the inputs of derived versions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidBackup
from adaptry.core.manifest import Manifest

_OWNED = "SELECT digest, max(size) FROM files GROUP BY digest ORDER BY digest"
_UNOWNED = """
SELECT manifest FROM revisions WHERE digest NOT IN (SELECT digest FROM commits)
    AND digest NOT IN (SELECT digest FROM versions)
    AND 'sha256:' || digest IN (SELECT text FROM terms WHERE field = 'parent')
"""


def iter_needed_files(catalog: Path) -> Iterator[tuple[Digest, int]]:
    """Each file's digest and size, in the order of the digests; memory use does not grow with the number of
    files.
    """
    try:
        with closing(sqlite3.connect(f"file:{catalog}?mode=ro&immutable=1", uri=True)) as database:
            # A deleted version from which another was made has no owner; there are few.
            held = {
                entry.sha256.hex: entry.size
                for (manifest,) in database.execute(_UNOWNED)
                for entry in Manifest.parse(manifest).files
            }
            waiting = sorted(held.items(), reverse=True)
            for digest, size in database.execute(_OWNED):
                while waiting and waiting[-1][0] <= digest:
                    other = waiting.pop()
                    if other[0] != digest:
                        yield Digest(other[0]), other[1]
                yield Digest(digest), size
            yield from ((Digest(digest), size) for digest, size in reversed(waiting))
    except sqlite3.Error as error:
        raise InvalidBackup(f"the backup's catalog cannot be read: {error}") from error
