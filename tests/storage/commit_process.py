"""A process that commits adapters to `main`, one after another, and prints the id of each acknowledged
commit.

python commit_process.py REGISTRY NAME FOLDER…
"""

from __future__ import annotations

import sys

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.registry.commit_info import CommitNote
from adaptry.storage.connect import open_local


def main(registry: str, name: str, *folders: str) -> None:
    opened = open_local(registry)
    adapter = AdapterName.parse(name)
    for folder in folders:
        content = open_dir(folder).content
        files = {path: (size, Digest.of_chunks(content.chunks(path))) for path, size in content.sizes.items()}
        for path, (size, digest) in files.items():
            if not opened.files.has(adapter, digest):
                session = opened.uploads.open(adapter, digest, size)
                session = opened.uploads.append(session, session.offset, content.chunks(path, session.offset))
                opened.uploads.finish(session)
        tree = Manifest.of(files).to_bytes()
        print(opened.commits.put(adapter, "main", tree, CommitNote(title="Upload")).commit.id, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
