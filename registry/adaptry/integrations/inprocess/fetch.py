"""Provides an adapter's files on this machine: a folder unchanged, or a version through the worker's
cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import Ref, is_folder_path
from adaptry.core.settings import AdaptrySettings
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.settings import open_worker_cache
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushResult, VersionInfo
from adaptry.storage.connect import connect

AdapterSource: TypeAlias = Ref | VersionInfo | PushResult | Path | str
"""A version (`"acme/tone@prod"`, or the result of a call), or a folder (a `Path`, or a string that begins
like one).
"""


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
    source: AdapterSource, registry: Registry | Path | str | None, cache: Cache | None
) -> Iterator[FetchedFiles]:
    """The files of `source`, leased for the block. A registry that this opens is closed at the block's end.

    Raises `Invalid`, and the errors of `Cache.acquire` and `open_dir`.
    """
    if isinstance(source, PushResult):
        source = source.version
    if isinstance(source, VersionInfo):
        source = source.revision_ref
    if isinstance(source, Path) or (isinstance(source, str) and is_folder_path(source)):
        folder = Path(source).expanduser()
        yield FetchedFiles(folder, open_dir(folder))
        return
    if not isinstance(source, Ref | str):
        raise Invalid(f"an adapter is a ref (acme/tone@prod) or a folder (./out), not {source!r}")
    settings = AdaptrySettings.from_env()
    with ExitStack() as stack:
        opened = (
            registry if isinstance(registry, Registry) else stack.enter_context(_connect(registry, settings))
        )
        used_cache = cache or stack.enter_context(closing(open_worker_cache(settings)))
        cached = used_cache.acquire(opened, source)
        if cache is not None:
            stack.callback(cache.release, cached.digest)
        yield FetchedFiles(cached.path, _open_cached(cached.path, cached.digest), cached.version, opened)


@lru_cache(maxsize=4)
def _open_cached(folder: Path, digest: Digest) -> Adapter:
    """The view of a leased entry. Its verified files are always those of the digest, so their headers are
    parsed once, for programs that switch between a few adapters.
    """
    return open_dir(folder)


def _connect(where: Path | str | None, settings: AdaptrySettings) -> Registry:
    return connect(None if where is None else str(where), settings, create_missing=False)
