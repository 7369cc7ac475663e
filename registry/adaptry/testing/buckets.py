"""Code shared by the real S3 servers for tests: address, credentials, a bucket, ports."""

from __future__ import annotations

import secrets
import socket
import subprocess
import time
from pathlib import Path

from adaptry.core.errors import Unavailable
from adaptry.core.lazy_dataclass import dataclass

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecret123"}
_BUCKET = "adaptry-tests"


@dataclass(frozen=True, slots=True)
class BucketServer:
    """The server's address; clients have `CREDENTIALS` in the environment."""

    endpoint: str

    def new_location(self) -> str:
        """An address without blobs: a new prefix in one bucket, since every new bucket takes volumes from the
        server.
        """
        return (
            f"s3://{_BUCKET}/{secrets.token_hex(6)}?endpoint={self.endpoint}&region=us-east-1&addressing=path"
        )

    def make_bucket(self) -> None:
        """Creates the bucket that all locations share; returns when the server can store objects in it."""
        import boto3
        from botocore.config import Config

        client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"mode": "standard", "max_attempts": 10}, s3={"addressing_style": "path"}),
        )
        client.create_bucket(Bucket=_BUCKET)
        client.put_object(Bucket=_BUCKET, Key="ready", Body=b"yes")  # it answers before it can store objects


def wait_for(server: subprocess.Popen[bytes], port: int, log: Path, seconds: float) -> None:
    """Returns when the port accepts connections. Raises `Unavailable` with the end of the log."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise Unavailable(f"the S3 server did not start: {log.read_text(errors='replace')[-2000:]}")
