"""A process that fetches an adapter into a cache, reports its progress, and waits for input before it
continues.

python cache_process.py REGISTRY CACHE REF hold      prints the path and holds the lease until its input ends
python cache_process.py REGISTRY CACHE REF stall     stops in the middle of the weights, prints `stalled`, and
    continues when its input ends
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.integrations.serving import Cache
from adaptry.storage.connect import open_local
from adaptry.storage.local.files import LocalFiles


class StallingFiles(LocalFiles):
    """Waits after the first chunk of a file that has several."""

    def read(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        for number, chunk in enumerate(super().read(name, revision, path, start)):
            if number == 1:
                print("stalled", flush=True)
                sys.stdin.read()
            yield chunk


def main(registry: str, cache: str, ref: str, how: str) -> None:
    opened = open_local(registry)
    if how == "stall":
        opened.files = StallingFiles(opened.context)
    print(Cache(cache).acquire(opened, ref).path, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
