"""`POST …/v1/shards`, `…/v2/shards`: joins the files of a shard and stores them in the adapter."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any

import anyio
from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, Response, StreamingResponse

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, DigestMismatch, NotFound, Unauthenticated, Unavailable
from adaptry_api.app_state import AppState
from adaptry_api.auth_policy import GrantContext, GuardedRoute, app_state_of
from adaptry_api.bodies import stream_body
from adaptry_api.denials import mark_denied
from adaptry_api.hub.refusals import HubRoute, hub_router
from adaptry_api.hub.upload_spool import UploadSpool
from adaptry_api.hub.uploads import content_length, require_length, store_file
from adaptry_api.hub.xet import shard
from adaptry_api.hub.xet.early_join import EarlyJoin
from adaptry_api.hub.xet.reassembly import JoinedFile, resolve_files, stored_runs
from adaptry_api.hub.xet.shard import XetFile
from adaptry_api.hub.xet.stored_xorb import Run, StoredXorb, files_beside, xorb_trailer
from adaptry_api.hub.xet_upload import UPLOAD_PATH, XetGrant, XetUploadId, XetWriter, slot_holder

ROUTES = hub_router()
_FRAMES = "application/x-ndjson"


class _FramedRoute(GuardedRoute):
    """Answers with a frame if the token that the upload was begun with was revoked or has expired since."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def framed(request: Request) -> Response:
            try:
                return await handle(request)
            except Unauthenticated as error:
                if not hasattr(request.state, "grant"):
                    raise
                mark_denied(request.scope, error)
                return Response(_failed(error), media_type=_FRAMES)

        return framed


class _FramedHubRoute(HubRoute, _FramedRoute):
    """A route of the Hub with such frames."""


FRAMED_ROUTES = APIRouter(route_class=_FramedHubRoute, include_in_schema=False)


@ROUTES.post(f"{UPLOAD_PATH}/v1/shards")
@ROUTES.post(f"{UPLOAD_PATH}/shards")
async def put_shard(request: Request, upload: XetUploadId, writer: XetWriter) -> Response:
    """Joins the files that the shard describes; responds once all of them are stored."""
    files = await _read_shard(request, upload, writer)
    joining = _Joining(app_state_of(request), upload, writer, files)
    async with joining.slot() as threads:
        await to_thread.run_sync(lambda: list(joining.store_all()), limiter=threads)
    return JSONResponse({"result": 1}, background=BackgroundTask(_free_spool, joining))


@FRAMED_ROUTES.post(f"{UPLOAD_PATH}/v2/shards")
async def put_shard_with_progress(request: Request, upload: XetUploadId, writer: XetWriter) -> Response:
    """Like `put_shard`, with a progress frame for each file. An error is a frame too, the only form that
    clients show to users.
    """
    try:
        files = await _read_shard(request, upload, writer)
    except AdaptryError as error:
        return Response(_failed(error), media_type=_FRAMES)
    joining = _Joining(app_state_of(request), upload, writer, files)
    return StreamingResponse(
        _progress_frames(joining), media_type=_FRAMES, background=BackgroundTask(_free_spool, joining)
    )


async def _read_shard(request: Request, upload: str, writer: XetWriter) -> tuple[XetFile, ...]:
    """Reads the shard in the request body and returns the files that it describes."""
    state = app_state_of(request)
    size = content_length(request, shard.MAX_SHARD_BYTES)

    def read(pieces: Iterator[bytes]) -> tuple[XetFile, ...]:
        with state.spools.open(writer.grant.name.namespace, upload) as spool:
            name = f"shard-{secrets.token_hex(8)}"
            spool.write(name, require_length(pieces, size))
            try:
                with spool.piece_path(name).open("rb") as file:
                    return shard.parse_shard(file)
            finally:
                spool.piece_path(name).unlink()

    async with state.uploads.slot(slot_holder(writer)) as threads:
        return await stream_body(request, read, threads, kind=None)


class _Joining:
    """Joins the files of one shard of an upload and stores them in the adapter."""

    def __init__(
        self, state: AppState, upload: str, writer: GrantContext[XetGrant], files: tuple[XetFile, ...]
    ) -> None:
        self.files = files
        self._state = state
        self._upload = upload
        self._writer = writer
        self._name = writer.grant.name
        self._stored: tuple[JoinedFile, ...] = ()  # set once all are stored
        self._early: EarlyJoin | None = None

    def slot(self) -> AbstractAsyncContextManager[anyio.CapacityLimiter]:
        """The threads for the two methods that follow. Raises `Busy`."""
        return self._state.uploads.slot(slot_holder(self._writer))

    def store_all(self) -> Iterator[int]:
        """Stores the files, yielding the count after each."""
        with self._spool() as spool:
            early = self._early = self._state.early_joins.take(self._upload)
            try:
                joined = resolve_files(self.files, _XorbFinder(self._state, self._writer, spool))
                claimed = early and early.claim(joined, self._state.blobs.chunks)
                begun, earlier = claimed or _stored_elsewhere(joined, spool) or (None, None)
                self._drop_early(spool, earlier)
                # `begun` is first: its open upload counts towards the uploads that the name may have.
                for done, file in enumerate(sorted(joined, key=lambda each: each is not begun), 1):
                    self._store(file, earlier if file is begun else None)
                    yield done
            finally:
                if early:
                    early.discard()
            self._stored = joined
            spool.mark_finished()

    def free_spool(self) -> None:
        """Drops the spooled bytes that are in the stored files now."""
        if not self._stored:
            return
        with self._spool() as spool:
            replaced = stored_runs(self._stored)
            for hash, (spooled_xorb, runs) in replaced.items():
                spool.write(hash, xorb_trailer(spooled_xorb.table, runs))
            if self._early is not None:
                self._early.release([spool.piece_path(hash) for hash in replaced])
            spool.mark_finished()

    @contextmanager
    def _spool(self) -> Iterator[UploadSpool]:
        """The upload's spool, for one shard at a time: one must not drop bytes that another is reading."""
        with self._state.spools.open(self._name.namespace, self._upload) as spool, spool.exclusive():
            yield spool

    def _drop_early(self, spool: UploadSpool, claimed: str | None) -> None:
        """Drops the uploads in which other processes of the server store bytes early, since they count
        against the quotas of the files. The bytes remain readable in the spool.
        """
        for id in files_beside(spool.path):
            if id != claimed:
                with suppress(NotFound):  # dropped, or a file of the adapter
                    self._writer.registry.uploads.drop(id)

    def _store(self, file: JoinedFile, earlier: str | None) -> None:
        """Stores the file in the adapter. `earlier`: the id of an upload that has its bytes already."""
        try:
            store_file(
                self._writer.registry,
                self._name,
                file.sha256,
                file.size,
                lambda start: file.read(start, self._state.blobs.chunks),
                earlier=earlier,
            )
        except DigestMismatch:
            # If a map is wrong or a stored file damaged, the client sends everything when it tries again.
            for source in file.sources:
                self._state.chunk_maps.forget(self._name, source)
            raise
        self._state.chunk_maps.save(self._name, file.sha256, file.table)


def _stored_elsewhere(files: Iterable[JoinedFile], spool: UploadSpool) -> tuple[JoinedFile, str] | None:
    """One of the files that another process of the server has stored early, if it has all bytes in order, and
    the id of its upload.
    """
    beside = files_beside(spool.path)
    for file in files:
        runs = file.runs
        for id, path in beside.items():
            if runs == (Run(path, 0, file.size),):
                return file, id
    return None


class _XorbFinder:
    """Finds a xorb by its hash: one of this upload, or a part of a file that the adapter has."""

    def __init__(self, state: AppState, writer: GrantContext[XetGrant], spool: UploadSpool) -> None:
        self._maps = state.chunk_maps
        self._writer = writer
        self._spool = spool
        self._present: set[Digest] = set()

    def __call__(self, hash: str) -> StoredXorb:
        """The xorb with this hash. Raises `NotFound`."""
        piece, name = self._spool.piece_path(hash), self._writer.grant.name
        found = StoredXorb.open(piece) if piece.exists() else self._maps.open_xorb(name, hash)
        for file in found.files - self._present:
            if not self._writer.registry.files.has(name, file):
                raise NotFound("no such xorb")
            self._present.add(file)
        return found


async def _progress_frames(joining: _Joining) -> AsyncIterator[bytes]:
    """Yields frames, one to a line: progress, then the result or an error."""
    stored = joining.store_all()
    try:
        async with joining.slot() as threads:
            while (done := await to_thread.run_sync(next, stored, None, limiter=threads)) is not None:
                yield _frame(type="validating", verified=done, total=len(joining.files))
        yield _frame(type="result")
    except AdaptryError as error:
        yield _failed(error)


async def _free_spool(joining: _Joining) -> None:
    """Runs after the response, for which the client waits."""
    with suppress(AdaptryError):  # the files are stored, and the spool is removed later
        async with joining.slot() as threads:
            await to_thread.run_sync(joining.free_spool, limiter=threads)


def _failed(error: AdaptryError) -> bytes:
    return _frame(type="error", message=error.message, retryable=isinstance(error, Unavailable))


def _frame(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"
