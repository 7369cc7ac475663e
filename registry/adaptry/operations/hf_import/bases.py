"""Registers a base on a hub without downloading it: only headers and short runs of each tensor are read.

The id equals that of the same files in a folder. Runs that the fingerprint will need are prefetched, many at
once, since each is a separate request; other reads are fetched on demand. The hub's SHA-256 of the weights
files is stored as evidence.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from adaptry.adapters.header import BASE_LIMITS, ReadAt, read_header
from adaptry.adapters.tensor_names import is_buffer, normalised
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.fingerprinting.sketch import sample_runs
from adaptry.bases.hf_folder import (
    CONFIG,
    INDEX,
    HfCheckpoint,
    build_checkpoint,
    list_shard_names,
    read_config,
)
from adaptry.bases.quantised import open_logical_view
from adaptry.core.errors import NotFound, TooLarge, Unsupported
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.operations.hf_import.file_reader import CONNECTIONS, HubFileReader
from adaptry.operations.hf_import.hub_client import HubClient, HubRepoRevision
from adaptry.operations.hf_import.hub_names import HubRef
from adaptry.registry.base_info import BaseInfo
from adaptry.registry.bases import Bases

_SMALL_FILES = (
    *(CONFIG, INDEX, "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *(
        "vocab.json",
        "added_tokens.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "chat_template.json",
    ),
)
_MAX_CACHED_BYTES = 128 << 20
_BLOCK = 4 << 10  # smallest read: the next read is often adjacent
_GAP = 16 << 10  # runs closer than this are one request


def register_from_hub(
    bases: Bases,
    hub: HubClient,
    ref: HubRef,
    names: tuple[str, ...] = (),
    progress: Progress = no_progress,
) -> BaseInfo:
    """Registers the base that `ref` selects now, under its name on the hub and `names`.

    Raises what `HubClient.resolve`, `open_checkpoint` and `bases.put` raise, and `Unsupported` for a
    repository without safetensors weights, or a pipeline.
    """
    revision = hub.resolve(ref)
    with tempfile.TemporaryDirectory() as folder, _opened(hub, revision, Path(folder)) as checkpoint:
        _fetch_ahead(checkpoint, progress)
        record = fingerprint(checkpoint)
    hashes = {
        shard: digest for shard in checkpoint.shards if (digest := revision.files[shard].sha256) is not None
    }
    if len(hashes) == len(checkpoint.shards):
        record = record.model_copy(update={"file_hashes": hashes})
    return bases.put(record, tuple(dict.fromkeys((revision.repository, *names))))


class _Window:
    """A cache of a file's fetched bytes; a read fetches missing ones."""

    def __init__(self, files: HubFileReader, path: str) -> None:
        self._files, self._path = files, path
        self._starts: list[int] = []
        self._pieces: list[bytes] = []
        self.size = files.file_info(path).size

    def read(self, offset: int, length: int) -> bytes:
        found = self._cached(offset, length)
        if found is None:
            self.keep(offset, self._files.read(self._path, offset, max(length, _BLOCK)))
            found = self._cached(offset, length)
        assert found is not None
        return found

    def fetch(self, start: int, end: int) -> tuple[int, bytes]:
        return start, self._files.read(self._path, start, end - start)

    def keep(self, start: int, piece: bytes) -> None:
        at = bisect_right(self._starts, start)
        self._starts.insert(at, start)
        self._pieces.insert(at, piece)

    def _cached(self, offset: int, length: int) -> bytes | None:
        end = min(offset + length, self.size)
        at = bisect_right(self._starts, offset) - 1
        if at < 0 or end > self._starts[at] + len(self._pieces[at]):
            return b"" if end <= offset else None
        return self._pieces[at][offset - self._starts[at] : end - self._starts[at]]


@dataclass(frozen=True, slots=True)
class _RemoteCheckpoint(HfCheckpoint):
    """A checkpoint whose folder has all files except the weights, which are read remotely."""

    windows: Mapping[str, _Window]

    @contextmanager
    def open_shard(self, shard: str) -> Iterator[ReadAt]:
        yield self.windows[shard].read


@contextmanager
def _opened(hub: HubClient, revision: HubRepoRevision, folder: Path) -> Iterator[_RemoteCheckpoint]:
    if "model_index.json" in revision.files:
        raise Unsupported(
            f"{revision} is a pipeline of diffusers: download it (hf download {revision.repository}"
            " --local-dir DIR) and register the folder"
        )
    files = HubFileReader(hub, revision)
    for path in _SMALL_FILES:
        if path not in revision.files:
            continue
        if revision.files[path].size > _MAX_CACHED_BYTES:
            raise TooLarge(
                f"{path} of {revision} is larger than {_MAX_CACHED_BYTES >> 20} MiB, the limit for this file"
            )
        (folder / path).write_bytes(files.read(path, 0, revision.files[path].size))
    if CONFIG not in revision.files:
        raise NotFound(f"{revision} has no {CONFIG}, so it is not a base model")
    shards = list_shard_names(set(revision.files), folder, str(revision))
    windows = {shard: _Window(files, shard) for shard in shards}
    headers = {
        shard: read_header(window.read, window.size, shard, BASE_LIMITS) for shard, window in windows.items()
    }
    plain = build_checkpoint(folder, read_config(folder), headers)
    yield _RemoteCheckpoint(
        plain.folder, plain.config, plain.shards, plain.tensors, plain.shard_of, {}, windows
    )


def _fetch_ahead(checkpoint: _RemoteCheckpoint, progress: Progress) -> None:
    """Prefetches the runs of every plain weight; those of packed ones depend on other reads."""
    folded = open_logical_view(checkpoint)
    weights = [
        name
        for name, info in folded.checkpoint.tensors.items()
        if name not in folded.packed and not is_buffer(name, info.shape)
    ]
    plain = normalised(weights)
    selection: dict[str, list[tuple[int, int]]] = {}
    for name in weights:
        shard = checkpoint.shard_of[name]
        selection.setdefault(shard, []).extend(sample_runs(checkpoint.tensors[name], plain[name]))
    ranges = [(shard, *span) for shard, spans in selection.items() for span in _joined(sorted(spans))]
    done, total = 0, sum(end - start for _, start, end in ranges)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        found = pool.map(lambda each: (each[0], *checkpoint.windows[each[0]].fetch(each[1], each[2])), ranges)
        for shard, start, piece in found:
            checkpoint.windows[shard].keep(start, piece)
            done += len(piece)
            progress("reading samples of the weights", done, total)


def _joined(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans in order of their starts, with adjacent spans merged."""
    start, end = spans[0]
    for next_start, next_end in spans[1:]:
        if next_start - end > _GAP:
            yield start, end
            start, end = next_start, next_end
        end = max(end, next_end)
    yield start, end
