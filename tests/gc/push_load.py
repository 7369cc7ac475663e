"""A process that pushes adapters in threads until its standard input ends, and repeatedly prints the number
of pushes.

python push_load.py REGISTRY SEED FOLDER...
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
from contextlib import closing, suppress

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.errors import Conflict, NotFound
from adaptry.operations.transfer import push
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.flaky_registry import NO_WAIT

NAMES = 3
_THREADS = 2
_TOLD = 10


def main(folder: str, seed: str, *folders: str) -> None:
    outs = [open_dir(each) for each in folders]
    over = threading.Event()
    pushes = itertools.count(1)
    with closing(open_local(folder)) as registry:
        threads = [
            threading.Thread(target=_push, args=(registry, outs, f"{seed}-{each}", over, pushes))
            for each in range(_THREADS)
        ]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        over.set()
        for thread in threads:
            thread.join()
    print(next(pushes) - 1, flush=True)


def _push(
    registry: LocalRegistry,
    outs: list[Adapter],
    seed: str,
    over: threading.Event,
    pushes: itertools.count[int],
) -> None:
    source = random.Random(seed)
    while not over.is_set():
        # If files were deleted or swept during a push, the push reports this, and is repeated.
        with suppress(NotFound, Conflict):
            push(registry, source.choice(outs), f"acme/tone-{source.randrange(NAMES)}", retry=NO_WAIT)
            if (number := next(pushes)) % _TOLD == 0:
                print(f"{number}\n", end="", flush=True)  # in one write: threads take turns between writes


if __name__ == "__main__":
    main(*sys.argv[1:])
