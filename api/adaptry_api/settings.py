"""What a server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`data` is the folder of the registry served.

    `anonymous_read` lets callers without a token read what is public. `docs` shows the OpenAPI description
    to them too. `hosts` are the host names answered to (empty: any), against rebinding of names by web
    pages. `uploads` run at once; more wait. Larger files than `part_bytes` come in parts of that size, where the
    client can. `require_known_base` refuses adapters whose base is not registered. Of merged models that are read, up to
    `merged_cache` bytes of finished files are kept on disk. `upstream` is the address of another Hub, from which names
    that are not here are read through with `upstream_token`, keeping up to `upstream_cache` bytes of its files.
    """

    data: Path
    anonymous_read: bool = False
    docs: bool = False
    hosts: tuple[str, ...] = ()
    uploads: int = 64
    part_bytes: int = 64 << 20
    require_known_base: bool = False
    merged_cache: int = 0
    upstream: str | None = None
    upstream_token: str | None = field(default=None, repr=False)
    upstream_cache: int = 64 << 30
