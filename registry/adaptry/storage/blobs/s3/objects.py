"""The objects of a bucket under one prefix: the few requests that the blob store needs.

Keys are relative to the prefix. Conditional writes are used if the server has them (`has_conditions` is what
is known so far); without them, an object may be written twice, with the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

from adaptry.core import tracing
from adaptry.core.errors import MissingDependency, NotFound, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.blobs.s3.location import S3Location

try:
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import ClientError, IncompleteReadError, ResponseStreamingError
    from botocore.loaders import Loader
except ModuleNotFoundError as error:
    raise MissingDependency(f"blobs in a bucket need {error.name}: pip install 'adaptry[s3]'") from error

from adaptry.storage.blobs.s3.call_spans import trace_calls
from adaptry.storage.blobs.s3.errors import (
    http_status,
    reject_html,
    require_answer,
    s3_error_code,
    translated_errors,
)

CONNECTIONS = 32
_MAX_ATTEMPTS = 4
_DELETE_BATCH = 8  # bulk deletes differ between servers
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 60.0


@cache
def _loader() -> Loader:
    """Loads botocore's description of S3 for all clients: each session would load its own copy, which takes
    45 ms and 13 MB.
    """
    loader: Loader = botocore.session.Session().get_component("data_loader")
    return loader


@dataclass(frozen=True, slots=True)
class S3Object:
    """An object in a listing; `age` in seconds, by the server's clock."""

    key: str
    size: int
    age: float


class S3Objects:
    """Safe to use from many threads. Raises `Unavailable` if the server or the bucket cannot be used."""

    def __init__(self, location: S3Location) -> None:
        self.location = location
        self.has_conditions = True
        self.client: Any = self._client(location.endpoint)
        self._signing = self._client(location.public) if location.public else self.client

    def _client(self, endpoint: str | None) -> Any:
        """(`Any`: boto3 makes its clients' methods at run time.)"""
        with translated_errors(self.location):
            session = botocore.session.Session()
            session.register_component("data_loader", _loader())
            client = boto3.session.Session(botocore_session=session).client(
                "s3",
                endpoint_url=endpoint,
                region_name=self.location.region,
                config=Config(
                    signature_version="s3v4",
                    s3={"addressing_style": self.location.addressing},
                    retries={"mode": "standard", "max_attempts": _MAX_ATTEMPTS},
                    connect_timeout=_CONNECT_SECONDS,
                    read_timeout=_READ_SECONDS,
                    max_pool_connections=CONNECTIONS,
                    # Servers support different checksums, and some do not verify those that they accept.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        if tracing.is_enabled():
            trace_calls(client)
        client.meta.events.register("after-call.s3", reject_html)
        return client

    def key_params(self, key: str) -> dict[str, str]:
        """The parameters that name an object."""
        return {"Bucket": self.location.bucket, "Key": self.location.prefix + key}

    def size(self, key: str) -> int | None:
        """The size in bytes; None if there is no such object."""
        with translated_errors(self.location):
            try:
                return int(self._head(key)["ContentLength"])
            except ClientError as error:
                if http_status(error) == 404 and s3_error_code(error) != "NoSuchBucket":
                    return None
                raise

    def etag(self, key: str) -> str | None:
        """The `etag`, which changes when the object is written again; None if there is no such object."""
        with translated_errors(self.location):
            try:
                return str(self._head(key)["ETag"])
            except ClientError as error:
                if http_status(error) == 404 and s3_error_code(error) != "NoSuchBucket":
                    return None
                raise

    def copy(self, key: str, to: str, etag: str) -> bool:
        """Copies an object of any size within the bucket; returns False if its `etag` has changed."""
        size = self.size(key)
        if size is None:
            return False
        source = {"Bucket": self.location.bucket, "Key": self.location.prefix + key}
        with translated_errors(self.location):
            # Above 5 GiB in parts, since one request cannot copy more.
            self.client.copy(source, **self.key_params(to), ExtraArgs=dict(self.location.encryption))
        return self.etag(key) == etag

    def age(self, key: str) -> float | None:
        """Seconds since the object was written, by the server's clock; None if it does not exist."""
        with translated_errors(self.location):
            try:
                found = self._head(key)
            except ClientError as error:
                if http_status(error) == 404:
                    return None
                raise
            return _age(found["LastModified"], found)

    def read(self, key: str, start: int, length: int) -> tuple[bytes, int]:
        """The bytes of the range (fewer only at the end) and the object's size. Raises `NotFound`."""
        if length <= 0:
            return b"", self._known_size(key)
        byte_range = f"bytes={start}-{start + length - 1}"
        for left in reversed(range(_MAX_ATTEMPTS)):
            with translated_errors(self.location):
                try:
                    answer = self.client.get_object(**self.key_params(key), Range=byte_range)
                    data = bytes(answer["Body"].read())
                except (ResponseStreamingError, IncompleteReadError):
                    if not left:
                        raise
                    continue
                except ClientError as error:
                    if http_status(error) == 416:
                        return b"", self._known_size(key)
                    raise
            return _checked(data, answer, start, length)
        raise AssertionError("the last attempt returned or raised")

    def put(self, key: str, data: bytes | bytearray) -> None:
        """Writes the object, replacing an existing one."""
        with translated_errors(self.location):
            self._write(key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Writes the object if it does not exist; returns whether it wrote."""
        for left in reversed(range(_MAX_ATTEMPTS)):
            if not self.has_conditions:
                break
            with translated_errors(self.location):
                try:
                    self._write(key, data, IfNoneMatch="*")
                    return True
                except ClientError as error:
                    if not self.is_final_refusal(error) and left:
                        time.sleep(0.05 * (_MAX_ATTEMPTS - left))
                        continue
                    if http_status(error) == 412:
                        return False
                    if self.has_conditions:
                        raise
        if self.size(key) is not None:
            return False
        self.put(key, data)
        return True

    def is_final_refusal(self, error: ClientError) -> bool:
        """Handles a refused condition: False for a race to be retried; records if the server has no
        conditions.
        """
        if http_status(error) == 501:
            self.has_conditions = False
        return http_status(error) != 409

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes the objects; missing ones are not an error."""
        with translated_errors(self.location), ThreadPoolExecutor(_DELETE_BATCH, "s3-delete") as pool:
            for _ in pool.map(lambda key: self.client.delete_object(**self.key_params(key)), keys):
                pass

    def list_objects(self, prefix: str) -> Iterator[S3Object]:
        """Every object whose key begins with the prefix, in key order."""
        pages = self.client.get_paginator("list_objects_v2")
        with translated_errors(self.location):
            for page in pages.paginate(Bucket=self.location.bucket, Prefix=self.location.prefix + prefix):
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self.location.prefix)
                    yield S3Object(key, int(item["Size"]), _age(item["LastModified"], page))

    def abort_uploads(self, older: float) -> int:
        """Aborts multipart uploads older than the given seconds; returns how many."""
        ended = 0
        pages = self.client.get_paginator("list_multipart_uploads")
        with translated_errors(self.location):
            for page in pages.paginate(Bucket=self.location.bucket, Prefix=self.location.prefix):
                for item in page.get("Uploads", ()):
                    if _age(item["Initiated"], page) > older:
                        upload = {
                            "Bucket": self.location.bucket,
                            "Key": item["Key"],
                            "UploadId": item["UploadId"],
                        }
                        self.client.abort_multipart_upload(**upload)
                        ended += 1
        return ended

    def require_bucket(self) -> None:
        """Raises `Unavailable` if the bucket cannot be used."""
        with translated_errors(self.location):
            self.client.list_objects_v2(Bucket=self.location.bucket, Prefix=self.location.prefix, MaxKeys=1)

    def presigned_get(self, key: str, seconds: int, disposition: str) -> str:
        """A presigned URL with which any client may read this object, for the given time."""
        parameters = self.key_params(key) | {
            "ResponseContentDisposition": disposition,
            "ResponseContentType": "application/octet-stream",
        }
        with translated_errors(self.location):
            return str(
                self._signing.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)
            )

    def presigned_put(self, key: str, size: int, seconds: int) -> str:
        """A presigned URL with which any client may write this object, with exactly this size, for the given
        time.
        """
        parameters = self.key_params(key) | self.location.encryption | {"ContentLength": size}
        with translated_errors(self.location):
            return str(
                self._signing.generate_presigned_url("put_object", Params=parameters, ExpiresIn=seconds)
            )

    def _head(self, key: str) -> Any:
        return require_answer(self.client.head_object(**self.key_params(key)), "ETag", self.location)

    def _write(self, key: str, data: bytes | bytearray, **condition: str) -> None:
        parameters = self.key_params(key) | self.location.encryption | condition
        done = self.client.put_object(**parameters, Body=data, ContentMD5=md5(data))
        require_answer(done, "ETag", self.location)

    def _known_size(self, key: str) -> int:
        size = self.size(key)
        if size is None:
            raise NotFound(f"no such object in {self.location}")
        return size


def md5(data: bytes | bytearray) -> str:
    """The checksum with which a server verifies a body: the only one that all servers verify. It does not
    authenticate the sender.
    """
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _checked(data: bytes, answer: Any, start: int, length: int) -> tuple[bytes, int]:
    """Checks that the answer is the requested range; returns the object's size."""
    whole = str(answer.get("ContentRange", "")).rpartition("/")[2]
    if not whole.isdigit() or len(data) != min(length, int(whole) - start):
        raise Unavailable(
            "the blob server returned a different range than requested; it cannot be used for blobs"
        )
    return data, int(whole)


def _age(written: datetime, answer: Any) -> float:
    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return (now - written).total_seconds()
