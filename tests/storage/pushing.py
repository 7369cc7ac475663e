"""A process that pushes adapters one after another and prints the digest of each that was acknowledged.

python pushing.py REGISTRY NAME FOLDER…
"""

from __future__ import annotations

import sys

from adaptry.adapters.adapter import open_dir
from adaptry.operations.transfer import push
from adaptry.storage.connect import open_local


def main(registry: str, name: str, *folders: str) -> None:
    opened = open_local(registry)
    for folder in folders:
        pushed = push(opened, open_dir(folder), name)
        print(pushed.version.number, pushed.version.digest, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
