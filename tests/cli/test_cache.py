"""The cache commands: a folder for a ref, listing, eviction, and versions that must not be fetched again."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adaptry.core.digest import Digest
from adaptry.integrations.serving import Cache
from adaptry.integrations.serving.cache.engine_holds import EngineAddress

from .conftest import Run

Ask = Callable[..., Any]


@pytest.fixture(autouse=True)
def tone(run: Run, out: Path) -> None:
    run("push", "./out", "acme/tone")


def test_a_ref_is_fetched_into_a_folder_with_the_adapter(run: Run, answer: Ask) -> None:
    folder = Path(run("cache", "path", "acme/tone").stdout.strip())

    digest = answer("show", "acme/tone")["version"]["digest"]
    assert digest.removeprefix("sha256:") in str(folder)
    assert (folder / "adapter_config.json").is_file()
    (entry,) = answer("cache", "ls")
    assert (entry["digest"], entry["is_leased"], entry["is_part"]) == (digest, False, False)
    assert "acme/tone@1" in run("cache", "ls").stdout


def test_gc_removes_unused_versions(run: Run, answer: Ask) -> None:
    run("cache", "path", "acme/tone")
    assert run("cache", "gc", "--size", "1GB").stdout == ""

    assert run("cache", "gc").stdout.startswith("sha256:")

    assert answer("cache", "ls") == []


def test_a_blocked_version_is_fetched_again_once_unblocked(run: Run, answer: Ask) -> None:
    run("cache", "path", "acme/tone")
    (entry,) = answer("cache", "ls")

    run("cache", "block", entry["digest"][:20], "--reason", "it leaks")

    assert answer("cache", "ls") == []
    assert "it leaks" in run("cache", "path", "acme/tone", code=5).stderr
    assert "it leaks" in run("cache", "unblock", entry["digest"]).stderr
    run("cache", "unblock", entry["digest"], code=1)
    run("cache", "path", "acme/tone")


def test_former_names_of_commands_still_work(run: Run, answer: Ask) -> None:
    run("cache", "path", "acme/tone")
    (entry,) = answer("cache", "ls")
    run("cache", "forget", entry["digest"], "--reason", "it leaks")
    assert "it leaks" in run("cache", "readmit", entry["digest"]).stderr
    assert "readmit" not in run("cache", "--help").stdout
    assert "adaptry workers declare-gone [OPTIONS] WORKER" in run("workers", "gone", "--help").stdout


@pytest.mark.parametrize("word", ["prod", "sha256:0123456789ab", "7"])
def test_an_unknown_digest_cannot_be_blocked(run: Run, word: str) -> None:
    assert "pass all 64 digits" in run("cache", "block", word, "--reason", "it leaks", code=3).stderr


def test_the_environment_sets_the_caches_folder_and_size(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTRY_CACHE", str(tmp_path / "elsewhere"))
    assert run("cache", "path", "acme/tone").stdout.startswith(str(tmp_path / "elsewhere"))

    monkeypatch.setenv("ADAPTRY_CACHE_SIZE", "10")
    run("cache", "gc")
    assert "do not fit" in run("cache", "path", "acme/tone", code=6).stderr
    monkeypatch.setenv("ADAPTRY_CACHE_SIZE", "plenty")
    run("cache", "path", "acme/tone", code=2)


def test_a_folder_that_is_not_a_cache_stays_empty(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words in (("ls",), ("gc",)):
        run("cache", *words, "--cache", "./empty")

    assert list((tmp_path / "empty").iterdir()) == []


def test_versions_held_by_an_engine_stay_until_it_is_declared_gone(
    run: Run, answer: Ask, tmp_path: Path
) -> None:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{port.getsockname()[1]}"
        run("cache", "path", "acme/tone", "--cache", "./kept")
        digest = Digest.parse(answer("cache", "ls", "--cache", "./kept")[0]["digest"])
        Cache(tmp_path / "kept").hold(digest, EngineAddress("vllm", url), "acme/tone@prod")
        ours = ("--cache", "./kept")

        assert f"kept for vllm at {url}" in run("cache", "ls", *ours).stdout.replace("\n", " ")
        assert answer("cache", "ls", *ours)[0]["kept_for"][0]["names"] == ["acme/tone@prod"]
        kept = run("cache", "gc", *ours)
        assert kept.stdout == ""
        assert f"kept: vllm at {url}" in kept.stderr
        blocked = run("cache", "block", str(digest), "--reason", "it leaks", *ours).stderr
        assert "removed when they are no longer used by" in blocked and url in blocked

        port.listen()
        with serving_health(port):
            assert "an engine answers" in run("cache", "gc", "--engine-gone", url, *ours, code=4).stderr
    assert str(digest.hex) in str(next((tmp_path / "kept").glob(f"{digest.hex}")))
    run("cache", "gc", "--engine-gone", url, *ours)
    assert answer("cache", "ls", *ours) == []


@contextlib.contextmanager
def serving_health(port: socket.socket) -> Iterator[None]:
    """Answers one request on the socket, like a healthy engine."""

    def serve() -> None:
        connection, _ = port.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield
    thread.join(timeout=60)
