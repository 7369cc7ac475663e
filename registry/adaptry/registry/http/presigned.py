"""Uploads directly to a bucket: parts are sent to presigned URLs from the server, several at once.

If this fails, nothing is lost: a part that the bucket did not accept, and all parts after it, go through the
server. An unreachable bucket is not tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import cast

import urllib3
from urllib3.exceptions import HTTPError

from adaptry.registry.http.connection import Connection
from adaptry.registry.records import DirectPart, UploadInfo

_CONCURRENCY = 3
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
"""Seconds of silence after which, at the second time, the bucket is given up in favour of the server."""
_RETRIES = urllib3.Retry(
    total=3,
    connect=0,  # an unreachable bucket is detected quickly
    read=1,
    redirect=False,
    allowed_methods=None,
    status_forcelist=(500, 502, 503, 504),
    raise_on_status=False,
    backoff_factor=0.1,
    respect_retry_after_header=False,
)

Append = Callable[[UploadInfo, int, Iterable[bytes]], UploadInfo]


class DirectUploader:
    """A client's state of direct uploads."""

    def __init__(self, server: Connection) -> None:
        self._server = server
        self._is_closed = False

    def send(self, upload: UploadInfo, chunks: Iterable[bytes], append: Append) -> UploadInfo:
        """Sends bytes from the start of the first part on. Bytes that fill no part, and those after a failed
        part, go through `append`.
        """
        if self._is_closed or not all(self._may_go(part.address) for part in upload.direct):
            return append(upload, upload.direct[0].start, chunks)
        coming = iter(chunks)
        failure: Exception | None = None
        with ThreadPoolExecutor(_CONCURRENCY, "direct") as pool:
            row = _HashedParts(upload.direct, lambda part, data: pool.submit(self._put, part, data))
            try:
                for chunk in coming:
                    row.add(memoryview(chunk))
                    if row.is_broken:
                        break
            except Exception as error:  # noqa: BLE001  after any error, sent bytes are kept
                failure = error
            rest = row.finish()
        # Called even if nothing is left to send: the server reports what it received, and whether this upload
        # is still ours.
        upload = append(upload, row.sent, chain(rest, () if failure else coming))
        if failure is not None:
            raise failure
        return upload

    def _may_go(self, address: str) -> bool:
        """Whether the address may be used: never an unencrypted bucket of an encrypted server."""
        return address.startswith(
            ("https://", "http://") if self._server.url.startswith("http://") else "https://"
        )

    def _put(self, part: DirectPart, data: bytearray) -> bool:
        """Sends a part; returns whether the bucket accepted it."""
        try:
            answer = self._server.pool.request(
                "PUT",
                part.address,
                body=cast(bytes, data),  # any buffer will do
                headers=part.headers,
                retries=_RETRIES,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_ANSWER_SECONDS),
                redirect=False,
            )
        except (HTTPError, OSError):
            self._is_closed = True
            return False
        return answer.status == 200


class _HashedParts:
    """Fills parts one after another and sends a few at a time. The bucket has all parts up to `sent`."""

    def __init__(
        self, parts: Iterable[DirectPart], begin: Callable[[DirectPart, bytearray], Future[bool]]
    ) -> None:
        self._parts = deque(parts)
        self._begin = begin
        self._filling = bytearray()
        self._coming: deque[tuple[DirectPart, bytearray, Future[bool]]] = deque()
        self._over: list[bytes] = []
        self.sent = self._parts[0].start
        self.is_broken = False

    def add(self, chunk: memoryview) -> None:
        """Adds the next bytes. Bytes beyond the last part end direct sending."""
        while chunk and self._parts:
            room = self._parts[0].size - len(self._filling)
            self._filling += chunk[:room]
            chunk = chunk[room:]
            if len(self._filling) == self._parts[0].size:
                part, data = self._parts.popleft(), self._filling
                self._filling = bytearray()
                self._coming.append((part, data, self._begin(part, data)))
        if chunk:
            self._over.append(bytes(chunk))
            self.is_broken = True
        while len(self._coming) > _CONCURRENCY and not self.is_broken:
            self._end_first()

    def finish(self) -> list[bytes]:
        """Waits for parts that are being sent; returns the bytes after `sent`, which the bucket may lack."""
        while self._coming and self._end_first():
            pass
        rest = [data for _, data, _ in self._coming]
        return [bytes(data) for data in (*rest, self._filling, *self._over) if data]

    def _end_first(self) -> bool:
        part, _, future = self._coming[0]
        if not future.result():
            self.is_broken = True
            return False
        self.sent = part.start + part.size
        self._coming.popleft()
        return True
