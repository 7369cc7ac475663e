"""`serve` as a process: its output, the files that it leaves, how it stops, and which packages it never
imports.
"""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from adaptry.core.errors import Unavailable
from adaptry.core.refs import AdapterName
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import AdapterEdit
from adaptry_api.serve import bind, serve
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import until

CODE = """
import sys
from pathlib import Path
from adaptry_api.serve import serve
from adaptry_api.settings import ServerSettings
serve(
    ServerSettings(data=Path(sys.argv[1])),
    port=0,
    workers=int(sys.argv[2]),
    announce=lambda started: print(started.url, started.token_file, flush=True),
)
"""
SERVED = """
import subprocess, sys
from pathlib import Path
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server
folder, client = Path(sys.argv[1]), sys.argv[2]
with running_server(ServerSettings(data=folder / "data")) as server:
    subprocess.run([sys.executable, "-c", client, server.url, server.admin, folder], check=True)
print(*sorted({"torch", "numpy", "transformers", "boto3"} & set(sys.modules)))
"""
# In a separate process, since a client inspects the weights.
CLIENT = """
import sys
from pathlib import Path
from adaptry.adapters.adapter import open_dir
from adaptry.registry.http import HttpRegistry
from adaptry.testing.samples import tiny_lora
from adaptry.operations.transfer import pull, push
url, token, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
registry = HttpRegistry(url, token)
push(registry, open_dir(tiny_lora(folder / "tone")), "acme/tone")
pull(registry, "acme/tone", folder / "pulled")
"""

Run = Callable[..., tuple["subprocess.Popen[str]", str, Path]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with ExitStack() as stack:

        def start(workers: int = 1) -> tuple[subprocess.Popen[str], str, Path]:
            command = [sys.executable, "-c", CODE, str(tmp_path / "data"), str(workers)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.terminate)
            assert process.stdout
            url, token_file = process.stdout.readline().split()
            return process, url, Path(token_file)

        yield start


def accepts_connections(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def test_the_first_token_is_written_once_for_its_owner_alone(run: Run) -> None:
    process, url, token_file = run()
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(token_file.parent.stat().st_mode) == 0o700
    first = token_file.read_text()
    assert HttpRegistry(url, first.strip()).about().role == "admin"
    process.terminate()
    process.wait()
    _, again, same_file = run()
    assert (same_file, same_file.read_text()) == (token_file, first)
    assert HttpRegistry(again, first.strip()).about().namespaces == ("*",)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_server_stops_on_sigint_and_sigterm(run: Run, how: signal.Signals) -> None:
    process, url, token_file = run()
    HttpRegistry(url, token_file.read_text().strip()).about()
    process.send_signal(how)
    assert process.wait(timeout=60) in (0, -how)


def test_several_processes_serve_one_registry(run: Run) -> None:
    _, url, token_file = run(workers=2)
    registry = HttpRegistry(url, token_file.read_text().strip())
    for number in range(6):
        registry.adapters.create(AdapterName.parse(f"acme/tone-{number}"), AdapterEdit())
        assert len(registry.adapters.list().items) == number + 1


def test_the_processes_of_a_killed_server_end_and_free_its_address(run: Run, tmp_path: Path) -> None:
    process, url, token_file = run(workers=2)
    HttpRegistry(url, token_file.read_text().strip()).about()
    address = ("127.0.0.1", int(url.rpartition(":")[2]))

    process.kill()

    until(lambda: accepts_connections(address), lambda accepts: not accepts)
    with bind(*address):
        pass


def test_the_error_names_an_address_in_use(run: Run, tmp_path: Path) -> None:
    _, url, _ = run()
    with pytest.raises(Unavailable, match="choose another with --port"):
        serve(ServerSettings(data=tmp_path / "other"), port=int(url.rpartition(":")[2]))


def test_the_error_names_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="file"):
        serve(ServerSettings(data=tmp_path / "file"))


def test_a_server_that_admits_a_push_never_imports_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVED, str(tmp_path), CLIENT]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == ""
    assert (tmp_path / "pulled" / "adapter_model.safetensors").is_file()
