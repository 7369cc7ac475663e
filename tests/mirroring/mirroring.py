"""A process that mirrors one registry to another once, and prints what it copied.

python mirroring.py SOURCE TARGET
"""

from __future__ import annotations

import sys

from adaptry.operations.mirror.plan import MirrorSelection
from adaptry.operations.mirror.sync import sync_once
from adaptry.storage.connect import open_local


def main(source: str, target: str) -> None:
    print(
        *sync_once(open_local(source), open_local(target), MirrorSelection(aliases=True)).copied, flush=True
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
