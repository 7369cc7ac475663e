"""A version that an engine has loaded, and its usage, as far as it is known."""

from __future__ import annotations

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.engines import AdapterUsage


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version in an engine, under one name or several. `number` is None if the version was loaded by
    others; `last_used` is a Unix time; `usage` is None if it is not counted."""

    adapter: str
    number: int | None
    digest: Digest
    last_used: float | None
    usage: AdapterUsage | None
