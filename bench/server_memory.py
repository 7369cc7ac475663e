"""Measures a server's memory: idle, after reads, after pushes, and after an adapter of very many tensors.

    python bench/server_memory.py [--size 1000000] [--pushes 200] [--tensors 89088]

Every line shows the resident memory of the server's process alone, and the proportional share (PSS) of the
server with its children, in MB. The registry has `--size` versions (`bench/filled.py`). Reads are searches by
base, rank and metric, all different, and resolutions of 1,000 aliases.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import numpy
from figures import note
from filled import adapter_of, fill
from http_load import load
from safetensors.numpy import save_file
from search import MEASURED
from served import Served, served
from small_push import adapters, resident

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.operations.transfer import push
from adaptry.testing.samples import tiny_lora


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--pushes", type=int, default=200)
    parser.add_argument("--tensors", type=int, default=89_088)
    asked = parser.parse_args()
    logging.getLogger("adaptry.push").setLevel(logging.ERROR)  # the base is not registered
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        fill(f"sqlite:///{data / 'catalog.sqlite'}", asked.size)
        many = wide_adapter(Path(folder) / "wide", asked.tensors)
        with served(data) as server:
            load(server.url, ["/healthz"], {}, 1, 1)
            show("idle", server)
            read(server, asked.size)
            show("after searches and resolutions", server)
            fresh = adapters(Path(folder) / "adapters")
            for number in range(asked.pushes):
                push(server.registry, next(fresh), f"acme/tone-{number % 7}")
            show(f"after {asked.pushes} pushes", server)
            note("memory-load", [resident(server)])
            push(server.registry, many, "acme/wide")
            show(f"after an adapter of {asked.tensors:,} tensors", server)
            note("memory-tensors", [resident(server)])


def wide_adapter(folder: Path, tensors: int) -> Adapter:
    """A LoRA of rank 1 with this many tensors, two for each small weight."""
    tiny_lora(folder)
    weights = folder / "adapter_model.safetensors"
    prefix = "base_model.model.model.layers"
    factors = {
        f"{prefix}.{number}.self_attn.q_proj.lora_{side}.weight": numpy.ones(shape, numpy.float32)
        for number in range(tensors // 2)
        for side, shape in (("A", (4, 8)), ("B", (8, 4)))
    }
    save_file(factors, weights, {"format": "pt"})
    return open_dir(folder)


def read(server: Served, size: int) -> None:
    bearer = {"Authorization": f"Bearer {server.token}"}
    aliases = [f"/api/v1/adapters/{adapter_of(n * 7919, size)}/versions/prod" for n in range(1000)]
    different = [MEASURED.replace(">=0.1", f">=0.1{number:03}") for number in range(500)]
    for paths in (aliases, [f"/api/v1/search?q={quote(text)}" for text in different]):
        load(server.url, paths, bearer, 8, 3)


def show(what: str, server: Served) -> None:
    time.sleep(8)  # the work after an answer, the end of its children, the return of freed memory
    fields = Path(f"/proc/{server.process}/smaps_rollup").read_text().split()
    alone = int(fields[fields.index("Rss:") + 1]) << 10
    print(f"{what:<40}{alone / 1e6:7.1f} MB alone {resident(server) / 1e6:9.1f} MB with its children")


if __name__ == "__main__":
    main()
