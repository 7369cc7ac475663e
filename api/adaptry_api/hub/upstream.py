"""Another Hub behind this server: missing repositories are read through from there and cached on disk.

Off unless the operator names one. Requests use the operator's token or none, never a caller's, and are made
only for callers with a namespace on this server. Names in this server's namespaces are never looked up there,
so that a repository there cannot take the place of an adapter that is private or deleted.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import quote

import urllib3
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from urllib3.exceptions import HTTPError

from adaptry import __version__
from adaptry.core.digest import Digest
from adaptry.core.errors import CorruptData, RevisionNotFound, Unavailable
from adaptry.core.files.disk_cache import DiskLruCache
from adaptry.core.http import check_url, close_idle, discard_response, open_pool

_TRUSTED_SECONDS = 60.0
_MAX_ENTRIES = 1024
_MAX_BYTES = 16 << 20
_CHUNK = 1 << 20
_TIMEOUT = urllib3.Timeout(connect=5, read=30)

Hex40 = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Value(BaseModel):
    """An answer of another Hub; unused fields are ignored."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)


class UpstreamHubPointer(_Value):
    """The Git LFS fields of a large file."""

    sha256: Hex64


class UpstreamHubFile(_Value):
    """A file: large if it has `lfs`, otherwise identified by its git id."""

    rfilename: Annotated[str, Field(pattern=r"^[^\\\x00-\x1f]{1,512}$")]
    size: Annotated[int, Field(ge=0)]
    blobId: Hex40  # noqa: N815  the protocol's spelling
    lfs: UpstreamHubPointer | None = None


class UpstreamHubInfo(_Value):
    """A repository at one commit. (`Any`: cards are free-form.)"""

    id: str
    sha: Hex40
    siblings: tuple[UpstreamHubFile, ...] = ()
    tags: tuple[str, ...] = ()
    library_name: str | None = None
    pipeline_tag: str | None = None
    cardData: dict[str, Any] | None = None  # noqa: N815
    config: dict[str, Any] | None = None
    createdAt: datetime = datetime(1970, 1, 1, tzinfo=UTC)  # noqa: N815
    lastModified: datetime = datetime(1970, 1, 1, tzinfo=UTC)  # noqa: N815
    private: bool = False
    downloads: int = 0


class UpstreamHub:
    """The Hub at `url`, used with `token`; up to `cache` bytes of its files are kept in `folder`.

    Safe to use from many threads. `is_ours` returns whether this server uses a namespace.
    """

    def __init__(
        self, url: str, token: str | None, folder: Path, cache: int, is_ours: Callable[[str], bool]
    ) -> None:
        """Raises `Invalid` if `url` is malformed."""
        self._url = check_url(url)
        self._headers = {"User-Agent": f"adaptry/{__version__}", "Accept-Encoding": "identity"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._pool = open_pool(self._url, None, None)
        self._files = DiskLruCache(folder / "files", cache)
        self._answers = folder / "said"
        self._answers.mkdir(mode=0o700, exist_ok=True)
        self._is_ours = is_ours
        self._known: dict[tuple[str, str], tuple[float, UpstreamHubInfo | None]] = {}

    def info(self, id: str, revision: str) -> UpstreamHubInfo | None:
        """The other Hub's metadata of a repository; None if it has no such repository. Answers are cached
        for a minute; if the Hub does not respond, the last one is used.

        Raises `RevisionNotFound`, `Unavailable`.
        """
        if self._is_ours(id.partition("/")[0]):
            return None
        if revision in (".", ".."):  # would change the URL of the request
            raise RevisionNotFound(f"{id} has no revision {revision!a}")
        known = self._known.get((id, revision))
        if known and (known[0] > time.monotonic() or (known[1] and known[1].sha == revision)):
            return known[1]
        path = self._answers / Digest.of(f"{id}@{revision}".encode()).hex
        try:
            data = self._ask(id, revision)
        except Unavailable:
            if not path.exists():
                raise
            data = path.read_bytes()
        found = _parsed(data) if data is not None else None
        if data is not None:
            _write(path, data)
        if len(self._known) >= _MAX_ENTRIES:
            self._known.clear()
        self._known[id, revision] = (time.monotonic() + _TRUSTED_SECONDS, found)
        return found

    def read(self, id: str, commit: str, file: UpstreamHubFile, start: int) -> Iterator[bytes]:
        """A file's bytes from `start` on: cached ones, or the other Hub's as they arrive, which are cached
        once verified. Raises `Unavailable`, and `CorruptData` at the end of bytes that do not match their id.
        """
        tag = Digest.of((file.lfs.sha256 if file.lfs else file.blobId).encode())
        kept = self._files.open(tag, file.size)
        if kept is not None:
            with kept:
                kept.seek(start)
                while chunk := kept.read(_CHUNK):
                    yield chunk
            return
        if start:
            yield from self._fetch(id, commit, file, start)
            return
        with self._files.writer(tag, file.size) as keep:
            for chunk in _checked(self._fetch(id, commit, file, 0), file):
                if keep:
                    keep(chunk)
                yield chunk

    def close(self) -> None:
        close_idle(self._pool)

    def _ask(self, id: str, revision: str) -> bytes | None:
        """The info as JSON; None if there is no such repository. Raises `RevisionNotFound`, `Unavailable`."""
        address = f"/api/models/{quote(id)}/revision/{quote(revision, safe='')}?blobs=true"
        with self._get(address) as response:
            if response.status == 404 and response.headers.get("X-Error-Code") == "RevisionNotFound":
                raise RevisionNotFound(f"{id} has no revision {revision[:80]!a} at {self._url}")
            if response.status in (401, 403, 404):
                return None
            if response.status != 200:
                raise Unavailable(f"the upstream hub ({self._url}) answers {response.status}; try again")
            data = response.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise Unavailable(f"the upstream hub sent more than {_MAX_BYTES:,} bytes of metadata for {id}")
        return bytes(data)

    def _fetch(self, id: str, commit: str, file: UpstreamHubFile, start: int) -> Iterator[bytes]:
        address = f"/{quote(id)}/resolve/{commit}/{quote(file.rfilename)}"
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._get(address, headers) as response:
            if response.status != (206 if start else 200):
                raise Unavailable(
                    f"the upstream hub ({self._url}) answers {response.status} to {file.rfilename} of {id}"
                )
            try:
                yield from response.stream(_CHUNK)
            except HTTPError as error:
                raise Unavailable(
                    f"the connection to the upstream hub broke in {file.rfilename}: {error}"
                ) from error

    @contextmanager
    def _get(self, address: str, headers: dict[str, str] | None = None) -> Iterator[urllib3.BaseHTTPResponse]:
        """The response. A redirect to another host is followed without the token."""
        try:
            response = self._pool.request(
                "GET",
                self._url + address,
                headers={**self._headers, **(headers or {})},
                timeout=_TIMEOUT,
                pool_timeout=5,
                retries=urllib3.Retry(2, redirect=5, backoff_factor=0.2),
                preload_content=False,
            )
        except HTTPError as error:
            raise Unavailable(f"the upstream hub ({self._url}) does not answer: {error}") from error
        try:
            yield response
        finally:
            discard_response(response)


def _parsed(data: bytes) -> UpstreamHubInfo:
    try:
        return UpstreamHubInfo.model_validate(json.loads(data))
    except (ValidationError, ValueError, RecursionError) as error:
        raise Unavailable(
            "the upstream hub sent a response that does not follow the Hub's protocol"
        ) from error


def _checked(chunks: Iterator[bytes], file: UpstreamHubFile) -> Iterator[bytes]:
    """Yields the chunks; the last one only after all of them have been verified."""
    if file.lfs:
        hasher, wanted = hashlib.sha256(), file.lfs.sha256
    else:
        hasher, wanted = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False), file.blobId
    held = b""
    for chunk in chunks:
        if held:
            yield held
        hasher.update(chunk)
        held = chunk
    if hasher.hexdigest() != wanted:
        raise CorruptData(f"the upstream hub sent bytes of {file.rfilename} that do not match its id")
    if held:
        yield held


def _write(path: Path, data: bytes) -> None:
    draft = path.with_suffix(f".{time.monotonic_ns()}")
    draft.write_bytes(data)
    draft.replace(path)
