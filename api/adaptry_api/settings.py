"""The settings of a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`data` is the folder of the registry served, and `catalog` the PostgreSQL database of its rows, if any.

    `anonymous_read` lets callers without a token read what is public. `docs` shows the OpenAPI description
    to them too. `hosts` are the host names answered to (empty: any), against rebinding of names by web
    pages. `proxies` are the addresses and CIDR blocks of the proxies whose `X-Forwarded-Host` and
    `X-Forwarded-Proto` are believed. `origins` are those of the web pages that may call the server from a
    browser. `uploads` run at once; more wait. Larger files than `part_bytes` come in parts of that size,
    where the client can. `require_known_base` refuses adapters whose base is not registered. Of merged models
    that are read, up to `merged_cache` bytes of finished files are kept on disk. `upstream` is the address of
    another Hub, from which names that are not here are read through with `upstream_token`, keeping up to
    `upstream_cache` bytes of its files. `blobs` is the bucket of a registry that keeps its files in one,
    `blob_cache` how many bytes of them are kept in `data` too; with `presign_downloads`, readers of large
    files are sent to the bucket, and with `presign_uploads` their senders. Streams of events say every
    `heartbeat` seconds that they are alive; told to stop, the server goes on for `notice` seconds while
    `/readyz` says no. `mirror_of` is the address of a registry from which what is asked for and not here is
    fetched with `mirror_token`; what a ref means there is asked again after `mirror_age` seconds.

    Servers of one registry that do not share `data` are one server if they are told the same `admin_token`
    and `signing_secret`, files with the first administrator's token and with what grants are signed with, and
    share the folder `spools`, in which pieces of Hub clients' uploads wait. What is not given is in `data`.
    """

    data: Path
    catalog: str | None = field(default=None, repr=False)
    anonymous_read: bool = False
    docs: bool = False
    hosts: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    uploads: int = 64
    part_bytes: int = 64 << 20
    require_known_base: bool = False
    merged_cache: int = 0
    upstream: str | None = None
    upstream_token: str | None = field(default=None, repr=False)
    upstream_cache: int = 64 << 30
    blobs: str | None = None
    blob_cache: int | None = None
    presign_downloads: bool = False
    heartbeat: float = 10.0
    notice: float = 0.0
    presign_uploads: bool = False
    mirror_of: str | None = None
    mirror_token: str | None = field(default=None, repr=False)
    mirror_age: float = 60.0
    admin_token: Path | None = None
    signing_secret: Path | None = None
    spools: Path | None = None
