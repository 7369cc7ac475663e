"""Positional reads of a file on a hub, with HTTP range requests, so that only the read parts are downloaded.

A file's location is requested once, and again when it stops working, since storage URLs expire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from adaptry.core.errors import Unavailable
from adaptry.operations.hf_import.hub_client import DownloadLocation, HubClient, HubFileInfo, HubRepoRevision

CONNECTIONS = 16
_PIECE = 1 << 20
_PARTIAL, _WHOLE = 206, 200
_EXPIRED = (401, 403, 404, 410)
_BUSY = (408, 429, 500, 502, 503, 504)


class HubFileReader:
    """The files of a revision, opened at the first read. Safe for several threads."""

    def __init__(self, hub: HubClient, revision: HubRepoRevision) -> None:
        self._hub = hub
        self._revision = revision
        self._places: dict[str, DownloadLocation] = {}
        self._pool = urllib3.PoolManager(
            maxsize=CONNECTIONS,
            timeout=urllib3.Timeout(connect=20, read=60),
            retries=Retry(total=6, backoff_factor=0.5, status_forcelist=_BUSY, raise_on_status=False),
        )

    def read(self, path: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on; fewer only at the end of the file. Raises `Unavailable`,
        `NotFound`.
        """
        size = self._revision.files[path].size
        end = min(offset + length, size)
        if end <= offset:
            return b""
        answer = self._ask(path, offset, end, preload=True)
        if len(answer.data) != end - offset:
            received, wanted = len(answer.data), end - offset
            raise Unavailable(f"{self._what(path)}: received {received:,} bytes instead of {wanted:,}")
        return answer.data

    def stream(self, path: str) -> Callable[[int], Iterator[bytes]]:
        """A function that reads the file from a position on; it raises `Unavailable` if the connection
        breaks.
        """

        def read_from(start: int) -> Iterator[bytes]:
            if start >= self._revision.files[path].size:
                return
            answer = self._ask(path, start, self._revision.files[path].size, preload=False)
            try:
                yield from answer.stream(_PIECE, decode_content=False)
            except (HTTPError, OSError) as error:
                raise Unavailable(f"{self._what(path)}: the connection broke ({error})") from error
            finally:
                answer.release_conn()

        return read_from

    def file_info(self, path: str) -> HubFileInfo:
        return self._revision.files[path]

    def _ask(self, path: str, start: int, end: int, *, preload: bool) -> urllib3.BaseHTTPResponse:
        is_whole = (
            start == 0 and end == self._revision.files[path].size
        )  # servers often ignore a range that covers the whole file
        asked = {} if is_whole else {"Range": f"bytes={start}-{end - 1}"}
        for is_last in (False, True):
            location = self._places.get(path)
            if location is None:
                location = self._places[path] = self._hub.locate_file(self._revision, path)
            headers = {**location.headers, **asked, "Accept-Encoding": "identity"}
            try:
                answer = self._pool.request("GET", location.url, headers=headers, preload_content=preload)
            except (HTTPError, OSError) as error:
                raise Unavailable(f"{self._what(path)}: no answer ({error})") from error
            if answer.status == (_WHOLE if is_whole else _PARTIAL):
                return answer
            answer.close()
            if is_last or answer.status not in _EXPIRED:
                raise Unavailable(
                    f"{self._what(path)}: the download returned status {answer.status}; try again"
                )
            del self._places[path]
        raise AssertionError

    def _what(self, path: str) -> str:
        return f"{path} of {self._revision} at {self._hub.endpoint}"
