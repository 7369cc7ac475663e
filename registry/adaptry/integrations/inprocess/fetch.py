"""Provides an adapter's files on this machine: a folder as it is, or a version through the worker's cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.errors import Invalid
from adaptry.core.refs import Ref, is_folder
from adaptry.core.settings import AdaptrySettings
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.settings import open_worker_cache
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.storage.connect import connect

AdapterSource = Ref | Path | str


@dataclass(frozen=True, slots=True)
class FetchedFiles:
    """An adapter's local files. `version` and `registry` are None for a folder."""

    folder: Path
    adapter: Adapter
    version: VersionInfo | None = None
    registry: Registry | None = None

    def __str__(self) -> str:
        return self.version.label if self.version else str(self.folder)


@contextmanager
def fetch_files(
    source: AdapterSource, registry: Registry | str | None, cache: Cache | None
) -> Iterator[FetchedFiles]:
    """The files of `source`: a folder (a `Path`, or text that begins like one), else a ref. They are leased
    for the block.

    Raises `Invalid`, and as `Cache.acquire` and `open_dir`.
    """
    if isinstance(source, Path) or (isinstance(source, str) and is_folder(source)):
        folder = Path(source).expanduser()
        yield FetchedFiles(folder, open_dir(folder))
        return
    if not isinstance(source, Ref | str):
        raise Invalid(f"an adapter is a ref (acme/tone@prod) or a folder (./out), not {source!r}")
    settings = AdaptrySettings.from_env()
    opened = registry if isinstance(registry, Registry) else connect(registry, settings)
    used_cache = cache or open_worker_cache(settings)
    cached = used_cache.acquire(opened, source)
    try:
        yield FetchedFiles(cached.path, open_dir(cached.path), cached.version, opened)
    finally:
        if cache is None:
            used_cache.close()
        else:
            used_cache.release(cached.digest)
