"""The settings of a server."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path

from adaptry.core.lazy_dataclass import dataclass
from adaptry_api.request_log import LogFormat, LogLevel


@dataclass(frozen=True, slots=True)
class SsoSettings:
    """An OpenID provider, and this server as its client; without a `client_secret`, a public client.

    `scopes` are requested in addition to `openid`; `groups_claim` is the claim that lists a user's groups.
    """

    issuer: str
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    scopes: tuple[str, ...] = ("profile", "email")
    groups_claim: str = "groups"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`data` is the registry's folder, and `catalog` the PostgreSQL database of its rows, if any.

    `anonymous_read` lets callers without a token read public adapters. `hosts` are the host names that the
    server answers to (empty: any), against DNS rebinding. `proxies` are the addresses and CIDR blocks of
    proxies whose `X-Forwarded-Host` and `X-Forwarded-Proto` are trusted. `origins` are the origins of web
    pages that may call the server from a browser. At most `uploads` uploads run at once; others wait. Hub
    clients that support parts send files larger than `whole_bytes` in parts of `part_bytes` bytes; smaller
    files are stored as they arrive. `require_known_base` refuses
    adapters whose base is not registered. Up to `merged_cache` bytes of finished files of merged models are
    kept on disk. `upstream` is the address of another Hub, from which unknown names are read through with
    `upstream_token`, keeping up to `upstream_cache` bytes of its files. `blobs` is the bucket of a registry
    that keeps its files in one, and `blob_cache` the number of bytes of them that are kept in `data` too;
    with `presign_downloads`, downloads of large files are redirected to the bucket, and with
    `presign_uploads` their uploads. Event streams send a keep-alive line every `heartbeat` seconds. When
    stopped, the server continues for `notice` seconds while `/readyz` answers 503. `mirror_of` is the address
    of a registry from which missing versions are fetched with `mirror_token`; a ref is resolved there again
    after `mirror_ttl` seconds.

    Servers of one registry that do not share `data` act as one server if they have the same `admin_token` and
    `signing_secret` (files with the first administrator's token and with the secret for signing grants) and
    share the folder `upload_spool`, which holds pieces of Hub clients' uploads. By default, all three are in
    `data`.

    `allow_outgoing` are the networks (CIDR blocks) to which the server itself may send requests although
    they are not public; `ca_bundle` is a file of certificates that it trusts there. With
    `send_webhooks`, a server whose catalog is in `data` sends to webhooks; with PostgreSQL, runners do.

    `sso` is the identity provider at which users sign in with a browser.

    With a `log_level`, each process of the server writes its log to stderr in `log_format`. Without one, it
    configures no logging, for programs that do so themselves.
    """

    data: Path
    catalog: str | None = field(default=None, repr=False)
    anonymous_read: bool = False
    hosts: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    uploads: int = 64
    whole_bytes: int = 256 << 20
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
    mirror_ttl: float = 60.0
    admin_token: Path | None = None
    signing_secret: Path | None = None
    upload_spool: Path | None = None
    sso: SsoSettings | None = None
    allow_outgoing: tuple[str, ...] = ()
    send_webhooks: bool = True
    ca_bundle: str | None = None
    log_format: LogFormat = "text"
    log_level: LogLevel | None = None
