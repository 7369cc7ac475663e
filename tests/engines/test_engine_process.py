"""Facts that the process of an engine on this machine shows: its working directory and its start. Here,
engines are separate processes.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from adaptry.core.errors import CheckFailed, NotFound
from adaptry.integrations.serving import engine_process
from adaptry.integrations.serving.engine_process import EngineProcessFinder
from adaptry.integrations.serving.engines import ENGINES, EngineClient
from adaptry.testing.samples import tiny_base

from .conftest import PROD, Scene, settle

ROOT = Path(__file__).parents[2]
_SERVE = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.engines.fakes import FAKES
print(FAKES[sys.argv[2]](models=(sys.argv[3],)).url, flush=True)
sys.stdin.read()
"""
KINDS = ("sglang", "mistralrs")
"""The engines that do not report when they were started."""


@dataclass(frozen=True)
class EngineInProcess:
    """The part of an engine that a worker needs."""

    kind: str
    url: str
    process: subprocess.Popen[str]

    def names(self) -> list[str]:
        return [one.name for one in ENGINES[self.kind](EngineClient(self.url)).list_adapters()]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


Start = Callable[..., EngineInProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts an engine in a folder, with the path of its base as an argument."""
    with ExitStack() as stack:

        def start(kind: str, model: str, folder: Path) -> EngineInProcess:
            process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(ROOT), kind, model],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout
            return EngineInProcess(kind, process.stdout.readline().strip(), process)

        yield start


@pytest.mark.parametrize("kind", ["sglang", "mistralrs"])
@pytest.mark.parametrize("path", ["./base", "base", "../engine/base"])
def test_a_relative_path_is_that_of_the_engines_working_directory(
    scene: Scene, start: Start, monkeypatch: pytest.MonkeyPatch, kind: str, path: str
) -> None:
    """The worker's working directory does not count: another base may be there."""
    engine_folder, other = scene.folder / "engine", scene.folder / "worker"
    shutil.copytree(scene.folder / "base", engine_folder / "base")
    tiny_base(other / "base", seed=5)
    monkeypatch.chdir(other)
    scene.alias(scene.publish(1))
    engine = start(kind, path, engine_folder)
    settle(scene.worker(engine, base=None))  # type: ignore[arg-type]
    assert engine.names() == [PROD]
    assert scene.registry.workers.get("gpu-1").base_name == "org/tiny"


def test_a_relative_path_of_an_engine_whose_process_is_unknown_identifies_no_base(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that listens is not the engine's: its command does not name the base."""
    monkeypatch.chdir(scene.folder)
    engine = scene.engine("sglang", models=("./base",))
    scene.alias(scene.publish(1))
    with pytest.raises(NotFound, match=r"\./base.*engine's working directory.*whole path.*--base NAME"):
        scene.worker(engine, base=None).reconcile(0.0)
    settle(scene.worker(engine))
    assert scene.serves(engine) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_worker_new", [False, True])
def test_a_base_folder_that_is_replaced_while_the_engine_runs_does_not_change_what_it_serves(
    scene: Scene, start: Start, kind: str, is_worker_new: bool
) -> None:
    base = scene.folder / "base"
    engine = start(kind, str(base), scene.folder)
    scene.alias(scene.publish(1))
    worker = scene.worker(engine, base=None)  # type: ignore[arg-type]
    settle(worker)
    shutil.rmtree(base)
    tiny_base(base, seed=5)
    if is_worker_new:
        worker = scene.worker(engine, base=None)  # type: ignore[arg-type]
    worker._inspection.forget()  # as if after an outage
    settle(worker)
    assert engine.names() == [PROD]
    assert scene.registry.workers.get("gpu-1").base_name == "org/tiny"


@pytest.mark.parametrize("is_worker_new", [False, True])
def test_setting_the_clock_does_not_look_like_a_restart_of_the_engine(
    scene: Scene, start: Start, monkeypatch: pytest.MonkeyPatch, is_worker_new: bool
) -> None:
    """After the clock is set, the kernel reports a different boot time, and so a different start of the
    engine.
    """
    base = scene.folder / "base"
    engine = start("sglang", str(base), scene.folder)
    scene.alias(scene.publish(1))
    worker = scene.worker(engine, base=None)  # type: ignore[arg-type]
    settle(worker)
    shutil.rmtree(base)
    tiny_base(base, seed=5)
    set_clock_back(monkeypatch, seconds=3600)
    if is_worker_new:
        worker = scene.worker(engine, base=None)  # type: ignore[arg-type]
    settle(worker)
    assert engine.names() == [PROD]
    assert scene.registry.workers.get("gpu-1").base_name == "org/tiny"


def set_clock_back(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """Makes this process see what the kernel would report afterwards."""
    read = Path.read_text

    def read_text(path: Path, encoding: str | None = None) -> str:
        text = read(path, encoding)
        if path != Path("/proc/stat"):
            return text
        return re.sub(r"(?m)^btime (\d+)", lambda match: f"btime {int(match[1]) - seconds}", text)

    monkeypatch.setattr(Path, "read_text", read_text)


def test_a_base_folder_that_changed_after_the_start_of_an_engine_identifies_no_base(
    scene: Scene, start: Start
) -> None:
    base = scene.folder / "base"
    engine = start("sglang", str(base), scene.folder)
    scene.alias(scene.publish(1))
    os.utime(base / "config.json")  # its ctime is now
    process = EngineProcessFinder(engine.url).find()
    assert process is not None
    while (base / "config.json").stat().st_ctime <= process.started_at + 2:
        os.utime(base / "config.json")
    with pytest.raises(CheckFailed, match=r"changed after the engine started.*restart it"):
        scene.worker(engine, base=None).reconcile(0.0)  # type: ignore[arg-type]
    assert engine.names() == []


def test_the_process_is_the_one_that_listens_and_only_on_this_machine(start: Start, tmp_path: Path) -> None:
    engine = start("sglang", "./base", tmp_path)
    port = engine.url.rpartition(":")[2]
    for url in (engine.url, f"http://localhost:{port}"):
        found = EngineProcessFinder(url).find()
        assert found is not None
        assert (found.id, found.folder) == (engine.process.pid, tmp_path)
        assert found.is_engine(None, ["./base"])
        assert found.is_engine(found.started_at, [])
        assert not found.is_engine(None, ["base"])
        assert not found.is_engine(found.started_at - 60, ["./base"])
    assert EngineProcessFinder(f"http://192.0.2.1:{port}").find() is None
    finder = EngineProcessFinder(engine.url)
    assert finder.find() is not None
    engine.kill()
    assert finder.find() is None


def test_a_process_that_was_found_is_confirmed_without_reading_the_hosts_sockets(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be many thousands of sockets, if the kernel cannot list only the listening ones."""
    monkeypatch.setattr(engine_process, "listening_now", lambda: None)
    engine = start("sglang", "./base", tmp_path)
    finder = EngineProcessFinder(engine.url)
    found = finder.find()
    read, opened = Path.read_text, list[Path]()
    monkeypatch.setattr(Path, "read_text", lambda path, *args: opened.append(path) or read(path, *args))
    assert finder.find() is found
    assert not [path for path in opened if "net" in path.parts]
    finder.forget()
    assert finder.find() == found
    assert [path for path in opened if "net" in path.parts]


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_process_is_found_by_any_address_that_it_listens_at(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listening:
        listening.bind((address, 0))
        listening.listen()
        host = "[::1]" if ":" in address else "127.0.0.1"
        found = EngineProcessFinder(f"http://{host}:{listening.getsockname()[1]}").find()
        assert found is not None
        assert found.id == os.getpid()


_LISTEN = """
import socket, sys
listening = socket.socket()
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listening.bind(("0.0.0.0", 0))
listening.listen()
print(listening.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_a_process_that_begins_to_listen_in_front_of_an_engine_is_found_at_once() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as engine:
        assert engine.stdout is not None
        port = int(engine.stdout.readline())
        finder = EngineProcessFinder(f"http://127.0.0.1:{port}")
        before = finder.find()
        assert before is not None
        assert before.id == engine.pid
        with socket.socket() as in_front:
            in_front.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            in_front.bind(("127.0.0.1", port))
            in_front.listen()
            now = finder.find()
            assert now is not None
            assert now.id == os.getpid()
        assert finder.find() == before
        engine.kill()
