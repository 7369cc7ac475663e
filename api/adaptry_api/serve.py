"""`serve`: a registry's folder as a server, until it is told to stop.

It binds the loopback address unless told otherwise. Every caller needs a token; only what is public can be
read without one, and only where that was asked for.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from uvicorn.supervisors import Multiprocess

from adaptry.errors import Unavailable
from adaptry_api.admin_token import admit_admin_token, ensure_admin_token
from adaptry_api.app import create_app
from adaptry_api.settings import ServerSettings
from adaptry_api.store import Store

KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Started:
    """Where the server listens, and the file with the first admin token."""

    url: str
    token_file: Path


def serve(
    data: Path,
    host: str = "127.0.0.1",
    port: int = 8750,
    *,
    catalog: str | None = None,
    anonymous_read: bool = False,
    docs: bool = False,
    hosts: tuple[str, ...] = (),
    require_known_base: bool = False,
    merged_cache: int = 0,
    upstream: str | None = None,
    upstream_token: str | None = None,
    upstream_cache: int = 64 << 30,
    blobs: str | None = None,
    blob_cache: int | None = None,
    presign_downloads: bool = False,
    notice: float = 0.0,
    presign_uploads: bool = False,
    mirror_of: str | None = None,
    mirror_token: str | None = None,
    mirror_age: float = 60.0,
    admin_token: Path | None = None,
    signing_secret: Path | None = None,
    spools: Path | None = None,
    workers: int = 1,
    log_level: str = "warning",
    announce: Callable[[Started], None] = lambda started: None,
) -> None:
    """Serves `data` until SIGINT or SIGTERM, then lets requests finish for half a minute (`draining`).

    `catalog` is the PostgreSQL database of its rows, where they are in one.
    `port` 0 takes a free one. `announce` is called once the address is bound: connections made from then on
    are answered. Raises `Unavailable` where the address or the folder cannot be had.
    """
    settings = ServerSettings(
        data=data,
        catalog=catalog,
        anonymous_read=anonymous_read,
        docs=docs,
        hosts=hosts,
        require_known_base=require_known_base,
        merged_cache=merged_cache,
        upstream=upstream,
        upstream_token=upstream_token,
        upstream_cache=upstream_cache,
        blobs=blobs,
        blob_cache=blob_cache,
        presign_downloads=presign_downloads,
        notice=notice,
        presign_uploads=presign_uploads,
        mirror_of=mirror_of,
        mirror_token=mirror_token,
        mirror_age=mirror_age,
        admin_token=admin_token,
        signing_secret=signing_secret,
        spools=spools,
    )
    store = Store(settings)
    try:
        token_file = admin_token or ensure_admin_token(data, store.catalog)
        if admin_token:
            admit_admin_token(admin_token, store.catalog)
    finally:
        store.close()
    listening = bind(host, port)
    try:
        announce(Started(url_of(host, listening), token_file))
        server = server_of(settings, workers=workers, log_level=log_level)
        if workers > 1:
            Multiprocess(server.config, sockets=[listening]).run()
        else:
            server.run(sockets=[listening])
    except KeyboardInterrupt:
        return  # requests have finished; uvicorn repeats the signal that it stopped for
    finally:
        listening.close()


def server_of(settings: ServerSettings, *, workers: int = 1, log_level: str = "warning") -> uvicorn.Server:
    """The server as `serve` runs it, without a socket yet."""
    config = uvicorn.Config(
        functools.partial(create_app, settings),
        factory=True,
        workers=workers,
        http=_protocol(),
        loop="auto",
        lifespan="on",
        log_level=log_level,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody's word is taken for where a request came from
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return uvicorn.Server(config)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `Unavailable`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # The protocol's number matters: asyncio turns Nagle's delay off only on a socket that says it is TCP.
        with ExitStack() as stack:
            listening = stack.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(1024)
            listening.set_inheritable(True)
            stack.pop_all()
    except OSError as error:
        raise Unavailable(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port"
        ) from error
    return listening


def url_of(host: str, listening: socket.socket) -> str:
    """The address to tell people."""
    port = listening.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _protocol() -> type[asyncio.Protocol] | str:
    """httptools with our deadlines where it is installed, else what uvicorn finds."""
    try:
        from adaptry_api.deadlines import DeadlineProtocol
    except ImportError:
        return "auto"
    return DeadlineProtocol
