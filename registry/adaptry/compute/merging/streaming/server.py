"""The process that computes merged models for a server: `python -m adaptry.compute.merging.streaming` (by
`sidecar_client`).

It receives one end of a control socket. Each message there transfers one end of a socket pair, for one
request and its response, which a separate thread handles. The process ends when the control socket is closed,
which also happens when the server crashes.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import threading
import traceback
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from adaptry.adapters.content import read_at
from adaptry.compute.merging.kernels import compute_on_one_thread
from adaptry.compute.merging.streaming.assembly import open_merged_model
from adaptry.compute.merging.streaming.hashes import FileHashCache
from adaptry.compute.merging.streaming.open_models import ModelPool
from adaptry.compute.merging.streaming.virtual_checkpoint import VirtualCheckpoint
from adaptry.compute.sidecar_client import frames
from adaptry.compute.sidecar_client.inputs import ComputeRequest, MergedFile, ModelDescription
from adaptry.core.errors import AdaptryError, Conflict, NotFound
from adaptry.core.files.background_io import BackgroundHasher
from adaptry.core.files.disk_cache import DiskLruCache

_FAILED = "the process that computes merged models failed on this request; the server's log has the details"


class ComputeServer:
    """Handles requests for merged models, many at once. `folder` is its work folder, in which up to `cache`
    bytes of finished files are kept."""

    def __init__(self, folder: Path, cache: int) -> None:
        self._scratch = folder
        self._hashes = FileHashCache(folder / "hashes")
        self._finished = DiskLruCache(folder / "files", cache)
        self._open = ModelPool(partial(open_merged_model, scratch=folder))

    def serve(self, channel: socket.socket) -> None:
        """Handles one request, read from the channel. Raises nothing: errors are sent as responses."""
        try:
            with channel:
                kind, payload = frames.receive(channel)
                if kind == "request":
                    self._handle(channel, payload)
        except frames.ChannelClosed:
            return

    def _handle(self, channel: socket.socket, payload: bytes) -> None:
        try:
            request = ComputeRequest.model_validate_json(payload)
            model = self._open.get(request.inputs)
            compute_on_one_thread(model.computed_by)
            if request.file is None:
                response = self._described(model).model_dump_json().encode()
                for start in range(0, len(response), frames.MAX_FRAME):
                    frames.send(channel, "data", response[start : start + frames.MAX_FRAME])
            else:
                self._send_file(channel, model, request, request.file)
        except frames.ChannelClosed:
            raise
        except AdaptryError as error:
            frames.send(channel, "error", frames.error_frame(error))
        except Exception:  # noqa: BLE001  (the reader gets the error, and the process continues)
            traceback.print_exc()
            frames.send(channel, "error", frames.error_frame(AdaptryError(_FAILED)))
        else:
            frames.send(channel, "end")

    def _described(self, model: VirtualCheckpoint) -> ModelDescription:
        beside = [
            MergedFile(name=name, size=file.size, sha256=file.sha256, tag=file.sha256, blob_id=file.blob_id)
            for name, file in model.side_files.items()
        ]
        weights = [
            MergedFile(name=name, size=model.sizes[name], sha256=self._hashes.get(tag), tag=tag)
            for name, tag in model.tags.items()
        ]
        files = sorted((*beside, *weights), key=lambda file: file.name)
        return ModelDescription(
            identity=model.identity, files=tuple(files), computed_by=model.computed_by, notes=model.plan.notes
        )

    def _send_file(
        self, channel: socket.socket, model: VirtualCheckpoint, request: ComputeRequest, name: str
    ) -> None:
        if model.identity != request.identity:
            raise Conflict("the merged model now consists of other files; request it again")
        size = model.sizes.get(name)
        if size is None:
            raise NotFound(f"the merged model has no file {name[:80]!a}")
        start, end = request.start, min(request.end, size)
        if name in model.side_files:
            for piece in _gathered(model.read(name, start, end)):
                frames.send(channel, "data", piece)
            return
        tag = model.tags[name]
        kept = self._finished.open(tag, size)
        if kept is not None:
            with kept:
                read = read_at(kept)
                for at in range(start, end, frames.MAX_FRAME):
                    frames.send(channel, "data", read(at, min(frames.MAX_FRAME, end - at)))
            return
        is_whole = (start, end) == (0, size)
        with (
            self._hashes.hash_stream(tag, size, start) as running,
            self._finished.writer(tag, size) if is_whole else contextlib.nullcontext() as keep,
            BackgroundHasher(running.update if running else None) as hashing,
        ):
            for piece in _gathered(model.read(name, start, end)):
                hashing.update(memoryview(piece))
                if keep is not None:
                    keep(piece)
                frames.send(channel, "data", piece)


def _gathered(parts: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """The same bytes in chunks of a frame's size, each with its own memory.

    The first chunk is sent immediately, so a reader of the header does not wait for a tensor.
    """
    held: list[bytes] = []
    room = frames.MAX_FRAME
    is_first = True
    for part in parts:
        view = memoryview(part)
        while view:
            held.append(bytes(view[:room]))
            view, room = view[room:], room - len(held[-1])
            if not room or is_first:
                yield b"".join(held)
                held, room = [], frames.MAX_FRAME
        is_first = False
    if held:
        yield b"".join(held)


def main(arguments: list[str]) -> None:
    """Serves requests until the control socket is closed."""
    parser = argparse.ArgumentParser(prog="python -m adaptry.compute.merging.streaming", description=__doc__)
    parser.add_argument("--control", type=int, required=True, help="the descriptor of the control socket")
    parser.add_argument("--folder", type=Path, required=True, help="folder for temporary files and caches")
    parser.add_argument(
        "--cache", type=int, default=0, help="maximum size in bytes of the finished files that are kept"
    )
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends it
    answerer = ComputeServer(given.folder, given.cache)
    with socket.socket(fileno=given.control) as control:
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not message:
                return
            for descriptor in descriptors:
                channel = socket.socket(fileno=descriptor)
                threading.Thread(target=answerer.serve, args=(channel,), daemon=True).start()
