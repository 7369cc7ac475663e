"""The dependencies and settings of a resolver."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.registry.interface import Registry

MakeLoraRequest = Callable[[str, int, str], Any]
"""Makes vLLM's `LoRARequest` from name, id and path. (`Any`: vLLM's own type.)"""


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    """A resolver's dependencies and settings. `version` is vLLM's, `base` the configured base
    (`identify_served_base`), `started_at` when vLLM's process started (Unix time), `worker_name` the
    configured name of the worker. `known_as` identifies the registry and the token, so that clients of one
    token get nothing that only another token may see. `max_age` is the time for which last known versions are
    served while the registry is unreachable. `preload` are names that are loaded before they are requested,
    and `pin` names that also stay in the engine. `most_names` are loaded at once, `most_stacks` of them
    stacks; beyond that, idle ones are unloaded. In seconds: `refresh_interval` is the shortest time between
    two refreshes, `report_interval` the longest without a report, however long a refresh takes, `linger` the
    time for which a replaced adapter stays loaded, and `refusal_ttl` the time for which a refusal is cached.
    `clock` returns seconds, `now` the time of day."""

    registry: Registry
    cache: Cache
    make_request: MakeLoraRequest
    version: str
    base: str | None = None
    started_at: float | None = None
    known_as: str = ""
    worker_name: str | None = None
    max_age: timedelta = timedelta(hours=24)
    preload: tuple[str, ...] = ()
    pin: tuple[str, ...] = ()
    most_names: int = 1000
    most_stacks: int = 64
    refresh_interval: float = 0.1
    report_interval: float = 20.0
    linger: float = 10.0
    refusal_ttl: float = 5.0
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
