"""The commands that start, use and stop a server."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.testing.warm_python import WarmPython

pytestmark = pytest.mark.usefixtures("out")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`adaptry serve` on a free port: its address, and the process."""
    process = WarmPython(
        [sys.executable, "-m", "adaptry_cli", "serve", "--data", str(tmp_path / "served"), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip(), process
    process.kill()
    process.communicate()


def test_the_same_adapter_has_the_same_digest_over_http(run, answer, tmp_path: Path, server) -> None:
    url, process = server
    here = run("push", "./out", "acme/tone").stdout

    run("ls", "--registry", url, code=5)
    run("login", url, "--token-file", str(tmp_path / "served" / "admin-token"))
    there = run("push", "./out", "acme/tone", "--registry", url).stdout
    run("pull", "acme/tone", "--to", "./tone", "--registry", url)

    assert there == here
    for path in (tmp_path / "tone").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    assert answer("whoami", "--registry", url)["role"] == "admin"
    assert {one["verdict"] for one in answer("doctor", "--registry", url)} == {"ok"}

    run("logout", url)
    run("ls", "--registry", url, code=5)

    process.send_signal(signal.SIGINT)
    _, story = process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    assert "Traceback" not in story


def test_a_public_server_prints_its_address_and_warns_about_plain_http(tmp_path: Path) -> None:
    process = WarmPython(
        [sys.executable, "-m", "adaptry_cli", "serve", "--data", str(tmp_path / "served"),
         "--host", "0.0.0.0", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    url = process.stdout.readline().strip()
    story = ""
    while "Ctrl-C" not in story and (line := process.stderr.readline()):
        story += line
    process.kill()
    process.communicate()

    assert url.startswith("http://127.0.0.1:")
    assert f"adaptry login http://{socket.gethostname()}:" in story
    assert "unencrypted" in story
    assert "0.0.0.0" not in story


def test_a_token_gives_its_rights_until_it_is_revoked(run, answer, tmp_path: Path, server) -> None:
    url, _ = server
    data = str(tmp_path / "served")
    secret = run("token", "create", "ci", "--role", "writer", "--namespace", "acme", "--data", data).stdout

    run("login", url, stdin=secret)
    run("push", "./out", "acme/tone", "--registry", url)
    run("push", "./out", "other/tone", "--registry", url, code=5)

    (made,) = [one for one in answer("token", "ls", "--data", data) if one["name"] == "ci"]
    assert secret.strip().endswith(made["last_four"])
    run("token", "revoke", str(made["id"]), "--data", data)
    assert {one["name"]: one["revoked_at"] is None for one in answer("token", "ls", "--data", data)}[
        "ci"
    ] is False


def test_a_wrong_token_is_not_saved(run, server, home: Path) -> None:
    url, _ = server

    run("login", url, stdin="adr_pat_nonsense", code=5)
    run("login", url, stdin="two words", code=2)

    assert not (home / "credentials.json").exists()


def test_tokens_are_created_through_a_server_as_in_its_folder(run, answer, tmp_path: Path, server) -> None:
    url, _ = server
    run("login", url, "--token-file", str(tmp_path / "served" / "admin-token"))
    secret = run("token", "create", "cd", "--role", "writer", "--namespace", "acme", "--registry", url).stdout

    assert secret.startswith("adr_pat_")
    there = answer("token", "ls", "--registry", url)
    assert there == answer("token", "ls", "--data", str(tmp_path / "served"))
    (made,) = [one for one in there if one["name"] == "cd"]
    run("token", "revoke", str(made["id"]), "--registry", url)
    run("login", url, stdin=secret, code=5)


def test_the_cache_size_for_finished_files_is_an_option(run, tmp_path: Path) -> None:
    told = run("serve", "--data", str(tmp_path / "served"), "--merged-cache", "lots", code=2).stderr
    assert "not a size: 'lots'" in told


def test_token_and_serve_use_the_configured_folder(run, monkeypatch, tmp_path: Path) -> None:
    run("push", "./out", "acme/tone", "--registry", "./ours")
    monkeypatch.setenv("ADAPTRY_URL", "./ours")

    token = run("token", "create", "ci", "--namespace", "acme").stdout.strip()
    with WarmPython(
        [sys.executable, "-m", "adaptry_cli", "serve", "--port", "0"], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, cwd=tmp_path,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            monkeypatch.setenv("ADAPTRY_TOKEN", token)
            assert "acme/tone" in run("ls", "--registry", url).stdout
        finally:
            process.kill()


def test_a_token_is_valid_for_at_most_ten_years(run) -> None:
    run("push", "./out", "acme/tone")
    assert "3650" in run("token", "create", "ci", "--namespace", "acme", "--days", "9999999", code=2).stderr


@pytest.mark.parametrize("words", [("serve", "--port", "0"), ("work",)], ids=" ".join)
def test_commands_on_a_folder_refuse_an_address(run, words: tuple[str, ...]) -> None:
    told = run("--registry", "http://127.0.0.1:9", *words, code=2).stderr

    assert "--data DIR" in told
    assert "http://127.0.0.1:9" in told
