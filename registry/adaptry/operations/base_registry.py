"""Registers bases by content, identifies the base in a folder, and opens bases by name.

A base's weights stay in their folder unless they are stored in the registry. A stored base can be opened by
name from anywhere, other bases only on the machine that registered them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from adaptry.adapters.base_record import BaseRecord, Level
from adaptry.adapters.content import FolderContent
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.fingerprinting.full_hashes import full_hashes
from adaptry.bases.fingerprinting.match import match_bases
from adaptry.bases.fingerprinting.quantised_copies import is_packed
from adaptry.bases.hf_folder import INDEX_END, HfCheckpoint, open_checkpoint, side_files
from adaptry.bases.hub_cache import hub_snapshots
from adaptry.bases.local_index import find_paths, record_path
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, Conflict, NotFound, TooLarge, Unsupported
from adaptry.core.identity import BaseVisibility
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import MAX_FILE, FileEntry
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import is_folder, parse_base_name
from adaptry.core.settings import data_folder
from adaptry.core.tree_paths import check_path
from adaptry.registry.bases import Bases
from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items

if TYPE_CHECKING:
    from adaptry.registry.base_info import BaseInfo, BaseMatch

_STRENGTH: Mapping[str, int] = {level: number for number, level in enumerate(get_args(Level))}


def register_base(
    registry: Registry,
    checkpoint: HfCheckpoint,
    names: tuple[str, ...] = (),
    *,
    full: bool = False,
    store: bool = False,
    visibility: BaseVisibility | None = None,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> BaseInfo:
    """Registers a base under `names`; a known base gains names and evidence.

    Without a `visibility`, a new base is private and a known one is unchanged. `full` reads every weight and
    adds digests over all weights and files; `store` also stores the files. The folder is recorded in `cache`
    (by default the user's). Raises `InvalidRef` for a malformed name, `Conflict` if a name belongs to another
    base, `TooLarge`, `Unsupported` (storing a pipeline), and what uploading raises; registering again
    continues the upload.
    """
    for name in names:
        parse_base_name(name)
    record = fingerprint(checkpoint)
    if store:
        _check_sizes(checkpoint)
    if full:
        hashes = full_hashes(checkpoint, record, progress=progress)
        record = record.model_copy(update={"roots": hashes.roots, "file_hashes": dict(hashes.files)})
    info = registry.bases.put(record, names)
    if visibility is not None:
        from adaptry.registry.base_info import BaseEdit

        info = registry.bases.edit(record.id, BaseEdit(visibility=visibility))
    record_path(cache or _cache(), record.id, checkpoint.folder)
    if store:
        info = registry.bases.store(record.id, _upload(registry, checkpoint, record, progress))
    return info


def find_matches(bases: Bases, checkpoint: HfCheckpoint) -> tuple[BaseMatch, ...]:
    """The known bases that a folder matches: the same base, a copy of it, or one with the same shapes; best
    match first.
    """
    return find_record_matches(bases, fingerprint(checkpoint))


def find_record_matches(bases: Bases, record: BaseRecord) -> tuple[BaseMatch, ...]:
    """Like `find_matches`, for a base record."""
    return in_match_order(iter_matches(bases, record))


def iter_matches(bases: Bases, record: BaseRecord) -> Iterator[BaseMatch]:
    """The known bases that may be like `record`, compared one at a time as they are requested: for callers
    with a limit.
    """
    from adaptry.registry.base_info import BaseMatch  # imports all models, which merges do not need

    for info in _candidates(bases, record):
        yield BaseMatch(base=info, match=match_bases(record, bases.record(info.id)))


def in_match_order(matches: Iterable[BaseMatch]) -> tuple[BaseMatch, ...]:
    """The similar bases, best match first."""
    alike = [candidate for candidate in matches if candidate.match.level != "different"]
    return tuple(sorted(alike, key=lambda candidate: _STRENGTH[candidate.match.level]))


def open_base(
    registry: Registry, key: str, *, cache: Path | None = None, progress: Progress = no_progress
) -> HfCheckpoint:
    """The base in a folder (`./base`), or by name, id, or the beginning of an id.

    A name is looked up in recorded folders on this machine, in the Hub's cache, then among the registry's
    stored weights, which are cached in `cache`. A folder counts if it has the base's fingerprint. Raises
    `NotFound`, with a remedy, if none of these places has it.
    """
    if is_folder(key):
        return open_checkpoint(key)
    info = registry.bases.get(key)
    cache = cache or _cache()
    folders = folders_of(info.id, cache)
    seen, kept = folders[:-1], folders[-1]
    copies = chain.from_iterable(map(hub_snapshots, info.names))
    for folder in chain(folders, copies):
        if checkpoint := _open_if_same(folder, info.id):
            return checkpoint
    if not info.is_stored:
        raise NotFound(_missing_weights_message(info, key, seen))
    _fetch(registry, info, kept, progress)
    if checkpoint := _open_if_same(kept, info.id):
        return checkpoint
    raise Conflict(
        f"the stored files of {key} do not match the base {info.id.brief}; store them again "
        "with `adaptry base add FOLDER --store`"
    )


def folders_of(base: Digest, cache: Path | None = None) -> tuple[Path, ...]:
    """Possible folders of a base on this machine: recorded ones, then the cache of stored weights."""
    cache = cache or _cache()
    return (*find_paths(cache, base), cache / "bases" / base.hex)


def _candidates(bases: Bases, record: BaseRecord) -> Iterator[BaseInfo]:
    """The bases with the same shapes, and those of which it may be a quantised copy (with other shapes)."""
    seen: set[Digest] = set()
    for info in bases.of_architecture(record.architecture):
        seen.add(info.id)
        yield info
    if seen and not is_packed(record):
        return
    for info in iter_items(lambda cursor: bases.list(cursor, limit=200)):
        if info.id not in seen and info.model_type == record.facts.get("model_type"):
            yield info


def _open_if_same(folder: Path, base: Digest) -> HfCheckpoint | None:
    """The checkpoint in `folder`, if it is complete and still that base."""
    try:
        checkpoint = open_checkpoint(folder)
        return checkpoint if fingerprint(checkpoint).id == base else None
    except (AdaptryError, OSError):
        return None  # gone, moved, overwritten, or another user's: the caller handles this


def _missing_weights_message(info: BaseInfo, key: str, seen: tuple[Path, ...]) -> str:
    """The error message for a base whose weights were not found, with the state of each recorded folder."""
    fates = [f"{folder} {'has changed' if folder.is_dir() else 'no longer exists'}" for folder in seen]
    fates += [f"{copy} has other weights" for name in info.names for copy in hub_snapshots(name)]
    was = f" ({', '.join(fates)})" if fates else ""
    name = f" --name {info.names[0]}" if info.names else ""
    return (
        f"the weights of {key} are neither on this machine{was} nor in the registry: pass their folder,"
        f" or store them once with `adaptry base add FOLDER{name} --store`"
    )


def _check_sizes(checkpoint: HfCheckpoint) -> None:
    for shard in checkpoint.shards:
        if "/" in shard:
            raise Unsupported(
                f"{checkpoint.folder} is a pipeline, into which nothing can be merged:"
                " register it without storing it"
            )
        if (checkpoint.folder / shard).stat().st_size > MAX_FILE:
            raise TooLarge(
                f"{shard} is larger than the {MAX_FILE >> 30} GiB that one stored file may have; save the"
                ' model again with save_pretrained(OUT, max_shard_size="5GB")'
            )


def _upload(
    registry: Registry, checkpoint: HfCheckpoint, record: BaseRecord, progress: Progress
) -> tuple[FileEntry, ...]:
    """Uploads every file of the base that the registry lacks."""
    from adaptry.operations.transfer import (
        upload,  # imported here, since it imports network modules, and most callers store nothing
    )

    names = [*checkpoint.shards, *(path.name for path in side_files(checkpoint.folder))]
    index = f"{checkpoint.stem}{INDEX_END}"
    if (checkpoint.folder / index).is_file():
        names.append(index)
    content = FolderContent(checkpoint.folder, names)
    entries: list[FileEntry] = []
    for name, size in content.sizes.items():
        digest = record.file_hashes.get(name) or Digest.of_chunks(
            _chunks_with_progress(content, name, size, progress)
        )
        if not registry.files.has(record.id, digest):
            upload(registry, record.id, content, name, digest, progress)
        entries.append(FileEntry(path=name, size=size, sha256=digest))
    return tuple(entries)


def _chunks_with_progress(
    content: FolderContent, name: str, size: int, progress: Progress
) -> Iterator[bytes]:
    done = 0
    for chunk in content.chunks(name):
        yield chunk
        done += len(chunk)
        progress(f"hashing {name}", done, size)


def _fetch(registry: Registry, info: BaseInfo, folder: Path, progress: Progress) -> None:
    """Downloads and verifies the stored files into `folder`, which appears atomically."""
    from adaptry.adapters.output_folder import output_folder
    from adaptry.operations.transfer.file_download import download
    from adaptry.operations.transfer.retry import DEFAULT_RETRY

    try:
        with output_folder(folder) as place:
            for entry in info.stored:
                path = place / check_path(entry.path)
                download(
                    _StoredFileReader(registry, info.id, entry.path), entry, path, progress, DEFAULT_RETRY
                )
    except Conflict:
        if not folder.is_dir():  # otherwise another process has fetched the same verified files
            raise


@dataclass(frozen=True, slots=True)
class _StoredFileReader:
    """Positional reads of one stored file of a base."""

    registry: Registry
    base: Digest
    path: str

    def __call__(self, start: int) -> Iterator[bytes]:
        return self.registry.bases.read_file(self.base, self.path, start)


def _cache() -> Path:
    return data_folder() / "cache"
