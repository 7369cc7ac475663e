"""A process that makes one registry follow another, for one round, and prints what it copied.

python mirroring.py SOURCE TARGET
"""

from __future__ import annotations

import sys

from adaptry.operations.mirroring.plan import Choice
from adaptry.operations.mirroring.sync import follow
from adaptry.storage.connect import open_local


def main(source: str, target: str) -> None:
    print(*follow(open_local(source), open_local(target), Choice(aliases=True)).copied, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
