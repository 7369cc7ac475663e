"""Compares the Hub's own clients over Adaptry's server with the same bytes from nginx.

    python bench/hub.py [--size-mb 200] [--adapters 200] [--rounds 3] [--folder DIR]

`hf download` of one large adapter, and a process that downloads many small ones, from `adaptry serve` and
from an nginx that serves the same responses and bytes as files; then `hf upload` of the large one, with and
without Xet, compared with a plain PUT of the file to nginx. Everything is on loopback, each download into a
fresh cache; they take turns, and the medians count. The bench does not install nginx; without it, a message
states that there is no comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from functools import partial
from pathlib import Path
from statistics import median

from figures import note
from transfer import in_turns, large_lora

from adaptry.testing.ports import free_ports
from adaptry.testing.samples import tiny_lora

ADAPTRY = (sys.executable, "-m", "adaptry_cli")
CLIENT = Path(sys.executable).with_name("hf")
MANY = """
import sys
from huggingface_hub import snapshot_download
for name in sys.argv[1:]:
    snapshot_download(name)
"""
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; tcp_nopush on; etag off; default_type application/octet-stream;
  client_max_body_size 0; client_body_temp_path {folder}/body; client_body_in_file_only off;
  server {{
    listen 127.0.0.1:{port};
    location /put/ {{ root {folder}; dav_methods PUT; create_full_put_path on; }}
{locations}
  }}
}}
"""
LOCATION = "    location = {path} {{ alias {file}; {headers} }}\n"


@dataclass(frozen=True)
class Place:
    """A server that the Hub's clients are pointed at. Their caches are in `homes`."""

    url: str
    token: str
    homes: Path

    def run(self, *command: str | Path, **settings: str) -> None:
        """Runs one client with a fresh cache, which is deleted at the end of the bench: when ext4 creates
        files, it searches all those deleted within the last seconds, which made a client three times as slow
        after five rounds.
        """
        home = tempfile.mkdtemp(dir=self.homes)
        env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        env |= {"HF_ENDPOINT": self.url, "HF_TOKEN": self.token, "HF_HOME": home, **settings}
        subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def get(self, path: str) -> tuple[bytes, Message]:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request) as answer:
            return answer.read(), answer.headers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size-mb", type=int, default=200)
    parser.add_argument("--adapters", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if shutil.which("nginx") is None:
        print("left out: there is no nginx to compare with (apt-get install nginx-light)")
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        Path(folder).chmod(0o755)  # nginx reads as another user
        measure(Path(folder), asked.size_mb << 20, asked.adapters, asked.rounds)


def measure(folder: Path, size: int, adapters: int, rounds: int) -> None:
    large = large_lora(folder / "large", size)
    weights = large / "adapter_model.safetensors"
    size = weights.stat().st_size
    names = [f"acme/small-{number}" for number in range(adapters)]
    with adaptry(folder / "data") as ours:
        ours.run(CLIENT, "upload", "acme/large", large)
        for number, name in enumerate(names):
            push(ours, tiny_lora(folder / "small" / str(number), seed=number), name)
        with nginx(folder / "nginx", ours, ["acme/large", *names]) as theirs:
            print(f"{size / 1e6:,.0f} MB and {adapters} small adapters, {rounds} rounds")
            compare(
                ("hub-download", "hf download, MB/s"),
                lambda place: place.run(CLIENT, "download", "acme/large"),
                size / 1e6,
                (theirs, ours),
                rounds,
            )
            compare(
                ("hub-snapshots", "snapshot_download of many, a second"),
                lambda place: place.run(sys.executable, "-c", MANY, *names),
                adapters,
                (theirs, ours),
                rounds,
            )
            uploads(ours, theirs, large, rounds)


def compare(
    row: tuple[str, str],
    action: Callable[[Place], None],
    amount: float,
    places: tuple[Place, Place],
    rounds: int,
) -> None:
    """Prints a line with the rates (`amount` per second) of nginx and of our server, which take turns, and
    their ratio.
    """
    taken = in_turns(rounds, {place.url: lambda _, place=place: action(place) for place in places})
    from_nginx, from_ours = ([amount / seconds for seconds in found] for found in taken.values())
    ratio = median(one / other for one, other in zip(from_ours, from_nginx, strict=True))
    show(f"{row[1]}, from nginx", median(from_nginx))
    show(f"{row[1]}, from adaptry", median(from_ours), f"{ratio:.2f} of nginx's")
    note(row[0], from_ours, from_nginx)


def uploads(ours: Place, theirs: Place, large: Path, rounds: int) -> None:
    weights = large / "adapter_model.safetensors"
    size = weights.stat().st_size

    def upload(name: str, settings: Mapping[str, str], number: int) -> None:
        ours.run(CLIENT, "upload", f"acme/{name}-{number}", large, **settings)

    taken = in_turns(
        rounds,
        {
            "PUT into nginx": lambda number: _put(weights, f"{theirs.url}/put/{number}"),
            "hf upload by Xet": partial(upload, "xet", {}),
            "hf upload by Git LFS": partial(upload, "lfs", {"HF_HUB_DISABLE_XET": "1"}),
        },
    )
    put = taken["PUT into nginx"]
    for name, found in taken.items():
        ratio = median(one / other for one, other in zip(put, found, strict=True))
        show(f"{name}, MB/s", size / 1e6 / median(found), f"{ratio:.2f} of the PUT's")


def show(what: str, value: float, ratio: str = "") -> None:
    print(f"  {what:<52}{value:8.1f}   {ratio}")


@contextmanager
def adaptry(data: Path) -> Iterator[Place]:
    """A separate server process, and a token that may write to `acme`."""
    command = [*ADAPTRY, "serve", "--data", str(data), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        made = [*ADAPTRY, "token", "create", "bench", "--role", "writer", "--namespace", "acme", "--data"]
        token = subprocess.run([*made, str(data)], check=True, capture_output=True, text=True).stdout.strip()
        try:
            yield Place(url, token, data.parent)
        finally:
            process.terminate()


def push(place: Place, folder: Path, name: str) -> None:
    """Pushes by our own client in this process, since 200 starts of another client take minutes."""
    from adaptry import open_dir
    from adaptry.operations.transfer import push as push_adapter
    from adaptry.registry.http import HttpRegistry

    push_adapter(HttpRegistry(place.url, place.token), open_dir(folder), name)


@contextmanager
def nginx(folder: Path, ours: Place, names: list[str]) -> Iterator[Place]:
    """An nginx with the responses of `ours` for these adapters, as files."""
    (port,) = free_ports(1)
    (folder / "body").mkdir(parents=True)
    (folder / "put").mkdir()
    (folder / "put").chmod(0o777)
    text = NGINX.format(folder=folder, port=port, locations="".join(_locations(folder, ours, names)))
    (folder / "nginx.conf").write_text(text)
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        place = Place(f"http://127.0.0.1:{port}", ours.token, ours.homes)
        while True:
            try:
                place.get(f"/api/models/{names[0]}")
                break
            except urllib.error.URLError:
                time.sleep(0.05)
        try:
            yield place
        finally:
            process.terminate()


def _locations(folder: Path, ours: Place, names: list[str]) -> Iterator[str]:
    for name in names:
        info, _ = ours.get(f"/api/models/{name}")
        sha = json.loads(info)["sha"]
        tree, _ = ours.get(f"/api/models/{name}/tree/{sha}?recursive=true&expand=false")
        answers = {
            f"/api/models/{name}": info,
            f"/api/models/{name}/revision/main": info,
            f"/api/models/{name}/tree/{sha}": tree,
        }
        for number, (path, body) in enumerate(answers.items()):
            file = folder / f"{name.replace('/', '-')}-{number}.json"
            file.write_bytes(body)
            yield LOCATION.format(path=path, file=file, headers="default_type application/json;")
        for entry in json.loads(tree):
            file = folder / f"{name.replace('/', '-')}-{entry['path']}"
            body, headers = ours.get(f"/{name}/resolve/{sha}/{entry['path']}")
            file.write_bytes(body)
            kept = {"ETag": headers["ETag"].replace('"', '\\"'), "X-Repo-Commit": sha}
            lines = " ".join(f'add_header {key} "{value}";' for key, value in kept.items())
            yield LOCATION.format(path=f"/{name}/resolve/{sha}/{entry['path']}", file=file, headers=lines)


def _put(file: Path, url: str) -> None:
    subprocess.run(["curl", "--silent", "--fail", "--upload-file", file, url], check=True)


if __name__ == "__main__":
    main()
