"""`adaptry login`: in a terminal, with servers that cannot sign in a program, and without a token."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import urllib3

from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(ServerSettings(data=tmp_path / "served")) as running:
        yield running


@pytest.fixture
def without_device_flow(server: Server) -> Iterator[str]:
    """A proxy before the server, which answers 404 for the device flow, as older servers do."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(404, {}, b"{}")

        def do_GET(self) -> None:
            passed = urllib3.request("GET", server.url + self.path, headers=dict(self.headers), retries=False)
            self.answer(passed.status, dict(passed.headers), passed.data)

        def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_terminal_asks_for_the_token_of_a_server_without_a_device_flow(
    without_device_flow: str, server: Server, tmp_path: Path
) -> None:
    typing, reading = os.openpty()
    try:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("adaptry"), "login", without_device_flow],
            env={**os.environ, "ADAPTRY_HOME": str(tmp_path)},
            stdin=reading,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        prompt = process.stdout.read(len("Token: "))  # input that is typed earlier is lost
        os.write(typing, f"{server.admin}\n".encode())
        output, _ = process.communicate(timeout=90)
    finally:
        os.close(typing)
        os.close(reading)
    assert process.returncode == 0 and prompt == "Token: ", prompt + output
    assert server.admin in (tmp_path / "credentials.json").read_text()


def test_a_server_without_a_device_flow_has_no_sign_in_with_a_browser(run, without_device_flow: str) -> None:
    refused = run("login", without_device_flow, "--browser", code=6)
    assert "--with-token" in refused.stderr


@pytest.mark.parametrize("option", [(), ("--with-token",)], ids=["stdin", "--with-token"])
def test_a_token_on_stdin_is_saved(run, server: Server, option: tuple[str, ...]) -> None:
    assert "root" in run("login", server.url, *option, stdin=f"{server.admin}\n").stdout


def test_a_login_shows_how_to_set_adaptry_url_unless_it_names_the_server_already(
    run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = f"export ADAPTRY_URL={server.url}"
    assert setting in run("login", server.url, stdin=server.admin).stderr
    monkeypatch.setenv("ADAPTRY_URL", f"{server.url}/")
    assert setting not in run("login", server.url, stdin=server.admin).stderr


def test_an_empty_stdin_is_refused_with_the_command_to_sign_in(run) -> None:
    for nothing in ("", "\n"):
        assert (
            "adaptry login https://registry.example --browser"
            in run("login", "https://registry.example", stdin=nothing, code=2).stderr
        )


def test_contradictory_login_options_are_refused(run) -> None:
    refused = run("login", "https://registry.example", "--browser", "--with-token", code=2)
    assert "pass only one of" in refused.stderr
