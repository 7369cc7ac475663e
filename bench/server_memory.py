"""How much memory does a server have after a load, and after it has admitted an adapter of many tensors?

    python bench/server_memory.py [--size 1000000] [--seconds 5] [--tensors 89088] [--folder DIR]

A registry of so many versions (`bench/filled.py`) is served by one process. 32 clients resolve aliases, then
search; then small adapters are pushed, and at last a LoRA of so many tensors of a few bytes (256 experts in
58 layers have 89,088). Memory is the server's and its children's, each with its own share of common pages,
read two seconds after each part.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from figures import note
from filled import adapter_of, fill
from http_load import load
from search import MEASURED
from served import Served, served
from small_push import adapters, resident

from adaptry.adapters.adapter import open_dir
from adaptry.operations.transfer import push
from adaptry.testing.samples import tiny_lora, write_safetensors

CLIENTS = 32
PROJECTIONS = ("down_proj", "gate_proj", "up_proj")
LAYERS = 58


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--pushes", type=int, default=50)
    parser.add_argument("--tensors", type=int, default=89_088)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    logging.getLogger("adaptry.push").setLevel(logging.ERROR)  # the base is not registered
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        data = Path(folder) / "data"
        data.mkdir()
        fill(f"sqlite:///{data / 'catalog.sqlite'}", asked.size)
        with served(data) as server:
            server.registry.adapters.list()
            show(server, "started")
            read(server, asked.size, asked.seconds)
            note("memory-load", [show(server, "after reads")])
            fresh = adapters(Path(folder) / "small")
            for number in range(asked.pushes):
                push(server.registry, next(fresh), f"acme/small-{number % 7}")
            show(server, "after pushes")
            push(server.registry, open_dir(many_tensors(Path(folder) / "many", asked.tensors)), "acme/many")
            note("memory-tensors", [show(server, f"after an adapter of {asked.tensors:,} tensors")])


def read(server: Served, size: int, seconds: int) -> None:
    bearer = {"Authorization": f"Bearer {server.token}"}
    resolved = [f"/api/v1/adapters/{adapter_of(n * 7919, size)}/versions/prod" for n in range(1000)]
    different = (MEASURED.replace(">=0.1", f">=0.1{number:03}") for number in range(500))
    for paths in (resolved, [f"/api/v1/search?q={quote(text)}" for text in different]):
        load(server.url, paths, bearer, CLIENTS, seconds)


def show(server: Served, what: str) -> int:
    time.sleep(2)
    size = resident(server)
    print(f"{size / 1e6:6.0f} MB {what}", flush=True)
    return size


def many_tensors(folder: Path, count: int) -> Path:
    """A LoRA of rank 1 with about this many tensors, on the experts of a model."""
    tiny_lora(folder, layers=1, rank=1, targets=PROJECTIONS, hidden=2)
    tensors = {}
    for number in range(count // 2):
        expert, projection = divmod(number // LAYERS, len(PROJECTIONS))
        module = f"layers.{number % LAYERS}.mlp.experts.{expert}.{PROJECTIONS[projection]}"
        for part, shape in (("lora_A", (1, 2)), ("lora_B", (2, 1))):
            tensors[f"base_model.model.model.{module}.{part}.weight"] = ("BF16", shape, b"\x00\x3f\x00\x3f")
    write_safetensors(folder / "adapter_model.safetensors", dict(sorted(tensors.items())), {"format": "pt"})
    return folder


if __name__ == "__main__":
    main()
