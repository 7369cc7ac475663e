"""A worker's registry and cache, from the environment. Workers reach the registry over HTTP only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from adaptry.core.byte_sizes import parse_bytes
from adaptry.core.errors import Invalid
from adaptry.core.settings import AdaptrySettings, data_folder, is_server
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.registry.http import HttpRegistry


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of workers only: the base that the engine serves, if its files do not identify it, and the
    seconds between two refreshes of a name."""

    base: str | None = None
    watch_seconds: float = 0.1

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Reads ADAPTRY_BASE, ADAPTRY_WATCH_SECONDS. Raises `Invalid`."""
        configured = environ.get("ADAPTRY_WATCH_SECONDS") or "0.1"
        try:
            seconds = float(configured)
        except ValueError:
            seconds = 0.0
        if not 0.05 <= seconds <= 3600:
            raise Invalid(f"ADAPTRY_WATCH_SECONDS is a number from 0.05 to 3600, not {configured[:40]!r}")
        return cls(environ.get("ADAPTRY_BASE") or None, seconds)


def open_worker_registry(settings: AdaptrySettings) -> HttpRegistry:
    """The registry at ADAPTRY_URL. Raises `Invalid` unless it is HTTP: workers open no local registry."""
    if settings.registry is None or not is_server(settings.registry):
        configured = f", not {settings.registry[:200]!r}" if settings.registry else ""
        raise Invalid(f"a worker needs a registry's address: set ADAPTRY_URL to http(s)://…{configured}")
    return HttpRegistry(settings.registry, settings.token, settings.ca_bundle, settings.proxy)


def open_worker_cache(settings: AdaptrySettings, folder: Path | None = None) -> Cache:
    """The cache in `folder`, else in ADAPTRY_CACHE, else in the user's data folder, of ADAPTRY_CACHE_SIZE.

    Raises `Invalid` if the size is malformed.
    """
    root = folder or (Path(settings.cache) if settings.cache else data_folder() / "cache" / "worker")
    return Cache(root, parse_bytes(settings.cache_size) if settings.cache_size else None)
