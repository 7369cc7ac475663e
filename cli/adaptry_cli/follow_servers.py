"""What `adaptry follow` serves: the engine's API with public names (`--proxy`), health and metrics
(`--listen`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from adaptry.core.errors import AdaptryError, Invalid, MissingDependency

if TYPE_CHECKING:
    from adaptry.integrations.serving.engines import Engine
    from adaptry.integrations.serving.follow.monitor import MonitorServer
    from adaptry.integrations.serving.follow.residency import Residency
    from adaptry.integrations.serving.proxy.server import ReverseProxy

_ADDRESS = re.compile(r"(?P<host>[^\s:/]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")


def describe_gap(engine: Engine) -> str:
    """Describes how `engine` treats requests while an alias moves, and how to avoid a gap."""
    gap = f"while an alias moves, {engine.name} has a gap: a request for it {engine.gap}"
    return f"{gap}; --proxy HOST:PORT avoids that" if engine.can_be_proxied else gap


def open_proxy(
    engine: Engine, names: Mapping[str, str], address: str, ca_bundle: str | None, connections: int = 512
) -> ReverseProxy:
    """A proxy to `engine`, with the routes of `names` from before a restart. Raises `Invalid`."""
    from adaptry.integrations.serving.proxy.client_connection import ClientLimits
    from adaptry.integrations.serving.proxy.engine import ProxiedEngine
    from adaptry.integrations.serving.proxy.server import ReverseProxy

    if not engine.can_be_proxied:
        raise Invalid(f"requests to {engine.name} name a folder, so --proxy is not possible")
    proxied = ProxiedEngine(engine, names)
    with suppress(AdaptryError):  # an engine that starts has nothing loaded yet
        proxied.list_adapters()
    return ReverseProxy(*parse_address(address), proxied, ca_bundle, ClientLimits(connections))


def open_monitor(address: str, residency: Callable[[], Residency]) -> MonitorServer:
    """Health and metrics at `address`. Raises `Invalid`, `MissingDependency`."""
    try:
        from adaptry.integrations.serving.follow.monitor import MonitorServer
    except ModuleNotFoundError as error:
        raise MissingDependency(f"--listen needs {error.name}: pip install 'adaptry[metrics]'") from error
    return MonitorServer(*parse_address(address), residency)


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of an address to listen at. Raises `Invalid`."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise Invalid(f"not an address to listen on: {text[:80]!r} (write HOST:PORT, such as 127.0.0.1:8001)")
    return match["host"].strip("[]"), int(match["port"])
