"""A process that pushes adapters one after another and prints the digest of each acknowledged version.

python push_process.py REGISTRY NAME FOLDER…

With `FILE_BY_FILE` or `IN_ONE_PASS` in the environment, each is pushed like a large adapter. `TOGETHER` is
the number of concurrent pushes. With `IN_ONE_BATCH`, all are pushed in one batch, as a server does with
pushes that arrive together. With `BASE`, each push recognises the base with that id; with `ALIAS`, it
moves that alias.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.core.manifest import BaseClaim, Manifest
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import PushOptions, PushResult
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.push_steps import BatchedPush, finish_together
from adaptry.storage.local.versions import LocalVersions
from adaptry.testing.file_by_file import push_file_by_file, push_in_one_pass


def main(registry: str, name: str, *folders: str) -> None:
    opened = open_local(registry)
    if "IN_ONE_BATCH" in os.environ:
        for pushed in push_in_one_batch(opened, map(open_dir, folders), AdapterName.parse(name)):
            assert isinstance(pushed, PushResult)
            print(f"{pushed.version.number} {pushed.version.digest}\n", end="", flush=True)
        return

    def push_and_tell(folder: str) -> None:
        pushed = push_until_done(opened, folder, name).version
        print(f"{pushed.number} {pushed.digest}\n", end="", flush=True)

    with ThreadPoolExecutor(int(os.environ.get("TOGETHER", "1"))) as pool:
        list(pool.map(push_and_tell, folders))


def push_in_one_batch(
    registry: LocalRegistry, made: Iterable[Adapter], name: AdapterName
) -> list[PushResult | Exception]:
    """Pushes the adapters in one batch. Returns the result or the error of each."""
    versions = cast(LocalVersions, registry.versions)

    def pending(adapter: Adapter) -> BatchedPush:
        data = {path: b"".join(adapter.content.chunks(path)) for path in adapter.content.sizes}
        manifest = Manifest.of({path: (len(held), Digest.of(held)) for path, held in data.items()})
        contents = [data[entry.path] for entry in manifest.files]
        return versions.pending_push(name, manifest.to_bytes(), PushOptions(), contents)

    return finish_together(list(map(pending, made)))


def push_until_done(registry: LocalRegistry, folder: str, name: str, tries: int = 50) -> PushResult:
    """Pushes again if a sweep without grace deleted the bytes between upload and revision, as the error
    asks.
    """
    for left in reversed(range(tries)):
        try:
            if "FILE_BY_FILE" in os.environ:
                return push_file_by_file(registry, open_dir(folder), AdapterName.parse(name))
            if "IN_ONE_PASS" in os.environ:
                return push_in_one_pass(registry, open_dir(folder), AdapterName.parse(name))
            options = PushOptions(alias=os.environ.get("ALIAS"))
            return push(registry, open_dir(folder), name, base=_recognised(), options=options)
        except NotFound:
            if not left:
                raise
    raise AssertionError("unreachable")


def _recognised() -> BaseClaim | None:
    return BaseClaim(id=Digest(os.environ["BASE"])) if "BASE" in os.environ else None


if __name__ == "__main__":
    main(*sys.argv[1:])
