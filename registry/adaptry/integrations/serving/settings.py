"""A worker's registry and cache, from the environment. Workers reach the registry over HTTP only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Self

from adaptry.core.byte_sizes import parse_bytes
from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.settings import AdaptrySettings, data_folder, is_server
from adaptry.core.stack_ref import StackRef
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.registry.http import HttpRegistry

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of workers in an engine: the base that it serves, if its files do not identify it; the seconds
    between two refreshes of a name; the name under which the worker reports; the time for which last known
    versions are served while the registry is unreachable; the names that are loaded before the first request
    (`preload`); and those that also stay in the engine (`pin`)."""

    base: str | None = None
    watch_seconds: float = 0.1
    name: str | None = None
    max_age: timedelta = timedelta(hours=24)
    preload: tuple[str, ...] = ()
    pin: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Reads ADAPTRY_BASE, ADAPTRY_WATCH_SECONDS, ADAPTRY_WORKER, ADAPTRY_OFFLINE_HOURS, ADAPTRY_PRELOAD
        and ADAPTRY_PIN. Raises `Invalid`, `InvalidRef`."""
        seconds = _number(environ, "ADAPTRY_WATCH_SECONDS", 0.1, (0.05, 3600))
        hours = _number(environ, "ADAPTRY_OFFLINE_HOURS", 24, (0, 87_600))
        name = environ.get("ADAPTRY_WORKER") or None
        if name and not _NAME.fullmatch(name):
            raise Invalid(
                "ADAPTRY_WORKER must be a name of at most 96 letters, digits, '.', '_' and '-', not"
                f" {name[:100]!r}"
            )
        return cls(
            base=environ.get("ADAPTRY_BASE") or None,
            watch_seconds=seconds,
            name=name,
            max_age=timedelta(hours=hours),
            preload=_names(environ, "ADAPTRY_PRELOAD"),
            pin=_names(environ, "ADAPTRY_PIN"),
        )


def _names(environ: Mapping[str, str], variable: str) -> tuple[str, ...]:
    """Refs, or stacks of them, separated by commas or spaces, each once. Raises `InvalidRef`."""
    names = tuple(dict.fromkeys(environ.get(variable, "").replace(",", " ").split()))
    for one in names:
        StackRef.parse(one)
    return names


def _number(environ: Mapping[str, str], variable: str, default: float, between: tuple[float, float]) -> float:
    configured = environ.get(variable) or str(default)
    try:
        found = float(configured)
    except ValueError:
        found = -1.0
    minimum, maximum = between
    if not minimum <= found <= maximum:
        raise Invalid(f"{variable} must be a number from {minimum:g} to {maximum:g}, not {configured[:40]!r}")
    return found


def open_worker_registry(settings: AdaptrySettings) -> HttpRegistry:
    """The registry at ADAPTRY_URL. Raises `Invalid` unless it is HTTP: workers open no local registry."""
    if settings.registry is None or not is_server(settings.registry):
        configured = f", not {settings.registry[:200]!r}" if settings.registry else ""
        raise Invalid(f"a worker needs a registry's address: set ADAPTRY_URL to http(s)://…{configured}")
    return HttpRegistry(settings.registry, settings.token, settings.ca_bundle, settings.proxy)


def open_worker_cache(settings: AdaptrySettings, folder: Path | None = None) -> Cache:
    """The cache in `folder`, else ADAPTRY_CACHE, else the user's data folder, with the size
    ADAPTRY_CACHE_SIZE.

    Raises `Invalid` if the size is malformed.
    """
    root = folder or (Path(settings.cache) if settings.cache else data_folder() / "cache" / "worker")
    return Cache(root, parse_bytes(settings.cache_size) if settings.cache_size else None)
