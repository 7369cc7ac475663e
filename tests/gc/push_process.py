"""A process that pushes an adapter and prints the version's number; it sends files again if a sweep deleted
them during the push.

python push_process.py REGISTRY NAME FOLDER "file by file"|"in one request"|"in one pass"
"""

from __future__ import annotations

import sys

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.errors import NotFound
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import PushResult
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.file_by_file import push_file_by_file, push_in_one_pass


def main(registry: str, name: str, folder: str, way: str) -> None:
    opened = open_local(registry)

    def push_one(registry: LocalRegistry, adapter: Adapter) -> PushResult:
        if way == "file by file":
            return push_file_by_file(registry, adapter, AdapterName.parse(name))
        if way == "in one pass":
            return push_in_one_pass(registry, adapter, AdapterName.parse(name))
        return push(registry, adapter, name)

    for _ in range(3):
        try:
            print(push_one(opened, open_dir(folder)).version.number, flush=True)
            return
        except NotFound:
            continue


if __name__ == "__main__":
    main(*sys.argv[1:])
