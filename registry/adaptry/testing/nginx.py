"""The real nginx for tests, with the configuration of `examples/gateway` and other addresses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adaptry.testing.gateway_process import running_gateway
from adaptry.testing.ports import free_ports

_MODULE = Path("/usr/lib/nginx/modules/ngx_http_js_module.so")
_READY = "start worker process "
_FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def find_nginx() -> str | None:
    """The program of Debian's package nginx, if it has its JavaScript module."""
    return shutil.which("nginx", path="/usr/sbin:/usr/bin") if _MODULE.exists() else None


@contextmanager
def running_nginx(
    program: str, folder: Path, config: Path, registry: int, engine: int, token: str
) -> Iterator[str]:
    """The address of a running nginx in front of an engine; `registry` and `engine` are ports of this
    machine, `token` is the gateway's. Raises `RuntimeError` with its last lines if it does not start.
    """
    (port,) = free_ports(1)
    text = config.read_text().replace("GATEWAY_TOKEN", token)
    for old, new in ((8080, port), (8750, registry), (8081, engine)):
        assert f"127.0.0.1:{old}" in text
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    own = "".join(f"    {name}_temp_path {folder / name};\n" for name in _FOLDERS)
    (folder / "nginx.conf").write_text(text.replace("http {\n", f"http {{\n{own}", 1))
    shutil.copy(config.with_name("gateway.js"), folder)
    main = f"daemon off; pid {folder / 'nginx.pid'}; error_log stderr notice;"
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr", "-g", main]
    with running_gateway(command, port, _READY) as address:
        yield address
