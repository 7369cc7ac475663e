"""What a server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`data` is the folder of the registry served.

    `anonymous_read` lets callers without a token read what is public. `docs` shows the OpenAPI description
    to them too. `hosts` are the host names answered to (empty: any), against rebinding of names by web
    pages. `uploads` run at once; more wait. Larger files than `part_bytes` come in parts of that size, where the
    client can. `require_known_base` refuses adapters whose base is not registered. Of merged models that are read, up to
    `merged_cache` bytes of finished files are kept on disk.
    """

    data: Path
    anonymous_read: bool = False
    docs: bool = False
    hosts: tuple[str, ...] = ()
    uploads: int = 64
    part_bytes: int = 64 << 20
    require_known_base: bool = False
    merged_cache: int = 0
