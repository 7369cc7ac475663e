"""`serve`: runs a server on a registry's folder until it is stopped.

It binds the loopback address by default. Every caller needs a token; if the operator allows it, public
adapters can be read without one.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from adaptry.core.errors import Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.processes.bounded import start_children_at_lowest_priority
from adaptry.core.telemetry import start_from_environment
from adaptry.storage.tokens import hash_token
from adaptry_api import request_log
from adaptry_api.admin_token import admit_admin_token, ensure_admin_token
from adaptry_api.app import create_app
from adaptry_api.app_state import AppState
from adaptry_api.process_memory import use_one_heap
from adaptry_api.proxies import networks_of
from adaptry_api.settings import ServerSettings
from adaptry_api.sign_in_link import SIGN_IN_LINK, create_sign_in_code
from adaptry_api.unused_libraries import refuse_old_pydantic

KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = 30
WORKER_SECONDS = 120
"""How long a worker process may take to start or to answer the supervisor, which then replaces it. A busy
machine takes many times the usual three seconds; uvicorn's limit of five would replace workers again and
again.
"""
SWITCH_SECONDS = 0.0005
"""Seconds that a thread may keep the event loop waiting for the interpreter: a tenth of Python's default.
While other threads compute, the loop waits this long at each step of each request.
"""
GC_THRESHOLDS = 4_000, 20, 100
"""A full collection took 80 ms on a busy machine, every 8 seconds under load. Little garbage is cyclic here,
and `FreedMemory` collects it when the process grows.
"""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The address of the server, and the file with the first admin token."""

    url: str
    token_file: Path


def sign_in_link(started: ServerAddress, data: Path) -> str:
    """A link that signs a browser on this machine in with the first token, once, for a minute."""
    by = hash_token(started.token_file.read_text().strip())
    return f"{started.url}{SIGN_IN_LINK}#{create_sign_in_code(data, by)}"


def serve(
    settings: ServerSettings,
    host: str = "127.0.0.1",
    port: int = 8750,
    *,
    workers: int = 1,
    announce: Callable[[ServerAddress], None] = lambda started: None,
) -> None:
    """Serves a registry until SIGINT or SIGTERM, then lets requests finish for half a minute (`shutdown`).

    `port` 0 takes a free one. `announce` is called once the address is bound: connections made from then on
    are answered. Raises `Unavailable` if the address or the folder cannot be used, and `Invalid` for a
    malformed proxy address.
    """
    refuse_old_pydantic()
    networks_of(settings.proxies)  # a worker that cannot start would be restarted endlessly
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
        return  # requests have finished; uvicorn raises the signal that stopped it again
    finally:
        listening.close()


def make_server(settings: ServerSettings, *, workers: int = 1) -> uvicorn.Server:
    """The server as `serve` runs it, without a socket yet."""
    config = uvicorn.Config(
        functools.partial(_application if workers == 1 else _worker_application, settings),
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
        timeout_worker_healthcheck=WORKER_SECONDS,
    )
    return uvicorn.Server(config)


def _worker_application(settings: ServerSettings) -> FastAPI:
    """Made in each process, if there are several."""
    threading.Thread(target=_stop_with_supervisor, daemon=True).start()
    refuse_old_pydantic()
    return _application(settings)


def _stop_with_supervisor() -> None:
    """Stops this process as SIGTERM does when its supervisor has ended for any reason. A worker that
    continued would keep the address, and a new server could not start.
    """
    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _application(settings: ServerSettings) -> FastAPI:
    """Made in each process that serves."""
    use_one_heap()
    sys.setswitchinterval(SWITCH_SECONDS)
    start_children_at_lowest_priority()
    if settings.log_level is not None:
        request_log.configure(settings.log_format, settings.log_level)
    start_from_environment("adaptry-server")
    application = create_app(settings)
    gc.collect()
    # Otherwise each full garbage collection visits all code and routes, and blocks all requests for 90 ms.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return application


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `Unavailable`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # The protocol's number matters: asyncio turns Nagle's delay off only for sockets that declare the
        # protocol TCP.
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
    """The address to show to users."""
    port = listening.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _first_token(settings: ServerSettings) -> Path:
    """The file with the first administrator's token, valid for this registry from now on. Creates the
    registry if it does not exist.
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
    """httptools with our deadlines if it is installed, otherwise uvicorn's own choice."""
    try:
        from adaptry_api.deadlines import DeadlineProtocol
    except ImportError:
        return "auto"
    return DeadlineProtocol
