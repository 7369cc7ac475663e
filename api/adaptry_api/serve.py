"""`serve`: runs a server on a registry's folder until it is stopped.

It binds the loopback address unless told otherwise. Every caller needs a token; only what is public can be
read without one, and only where that was asked for.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from adaptry.core.errors import Unavailable
from adaptry.core.processes.bounded import yield_to_this_process
from adaptry_api.admin_token import admit_admin_token, ensure_admin_token
from adaptry_api.app import create_app
from adaptry_api.app_state import AppState
from adaptry_api.proxies import networks_of
from adaptry_api.settings import ServerSettings

KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = 30
SWITCH_SECONDS = 0.0005
"""How long a thread may keep the event loop waiting for the interpreter: a tenth of Python's default. The
loop waits that long once for each step of each request, while other threads compute.
"""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where the server listens, and the file with the first admin token."""

    url: str
    token_file: Path


def serve(
    settings: ServerSettings,
    host: str = "127.0.0.1",
    port: int = 8750,
    *,
    workers: int = 1,
    announce: Callable[[ServerAddress], None] = lambda started: None,
) -> None:
    """Serves a registry until SIGINT or SIGTERM, then lets requests finish for half a minute (`draining`).

    `port` 0 takes a free one. `announce` is called once the address is bound: connections made from then on
    are answered. Raises `Unavailable` where the address or the folder cannot be had, and `Invalid` for a
    proxy that is not an address.
    """
    networks_of(settings.proxies)  # a worker that cannot start would be started again for ever
    token_file = _first_token(settings)
    listening = bind(host, port)
    try:
        announce(ServerAddress(url_of(host, listening), token_file))
        server = make_server(settings, workers=workers)
        if workers > 1:
            Multiprocess(server.config, sockets=[listening]).run()
        else:
            server.run(sockets=[listening])
    except KeyboardInterrupt:
        return  # requests have finished; uvicorn repeats the signal that it stopped for
    finally:
        listening.close()


def make_server(settings: ServerSettings, *, workers: int = 1) -> uvicorn.Server:
    """The server as `serve` runs it, without a socket yet."""
    config = uvicorn.Config(
        functools.partial(_application, settings),
        factory=True,
        workers=workers,
        http=_protocol(),
        loop="auto",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        # `proxies` trusts the configured ones only, and needs the real peer's address for that.
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return uvicorn.Server(config)


def _application(settings: ServerSettings) -> FastAPI:
    """Made in each process that serves."""
    sys.setswitchinterval(SWITCH_SECONDS)
    yield_to_this_process()
    application = create_app(settings)
    gc.collect()
    # Else each full collection visits all code and all routes: 90 ms during which nobody is served.
    gc.freeze()
    return application


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


def _first_token(settings: ServerSettings) -> Path:
    """The file with the first administrator's token, which opens this registry from now on. It also makes the
    registry, if it is new.
    """
    state = AppState(settings)
    try:
        if settings.admin_token is None:
            return ensure_admin_token(settings.data, state.catalog)
        admit_admin_token(settings.admin_token, state.catalog)
        return settings.admin_token
    finally:
        state.close()


def _protocol() -> type[asyncio.Protocol] | str:
    """httptools with our deadlines where it is installed, else what uvicorn finds."""
    try:
        from adaptry_api.deadlines import DeadlineProtocol
    except ImportError:
        return "auto"
    return DeadlineProtocol
