"""A process that pushes an adapter and prints the version's number; what was taken from under it is sent
again.

python pushing.py REGISTRY NAME FOLDER
"""

from __future__ import annotations

import sys

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import NotFound
from adaptry.operations.transfer import push
from adaptry.storage.connect import open_local


def main(registry: str, name: str, folder: str) -> None:
    opened = open_local(registry)
    for _ in range(3):
        try:
            print(push(opened, open_dir(folder), name).version.number, flush=True)
            return
        except NotFound:
            continue


if __name__ == "__main__":
    main(*sys.argv[1:])
