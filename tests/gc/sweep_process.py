"""A process that sweeps a registry without grace and prints what it deleted.

python sweep_process.py REGISTRY
"""

from __future__ import annotations

import sys
from datetime import timedelta

from adaptry.storage.connect import open_local
from adaptry.storage.maintenance.gc import collect_garbage


def main(folder: str) -> None:
    print(collect_garbage(open_local(folder), grace=timedelta(0)).deleted, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
