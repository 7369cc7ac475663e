"""A process that sweeps a registry without grace and prints what it deleted.

python sweeping.py REGISTRY
"""

from __future__ import annotations

import sys
from datetime import timedelta

from adaptry.gc import collect
from adaptry.opening import open_local


def main(folder: str) -> None:
    print(collect(open_local(folder), grace=timedelta(0)).deleted, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
