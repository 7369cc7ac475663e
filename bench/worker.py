"""Measures the time until a worker has an adapter, and until vLLM answers with it.

    python bench/worker.py [--megabytes 64] [--times 5]

The cache, over HTTP: a version that is not cached, compared with copying and flushing the same files on the
same disk; and one that is cached, compared with one request to the registry. Then, if `.venvs/vllm` exists
(`make environments`), vLLM with a tiny model on this CPU: the first answer with an adapter that is not on
this machine, with one in the cache, and with one that vLLM loads from a folder by its own HTTP interface; and
the time from the move of an alias to the first answer from the new version. Last, the time until `adaptry
follow` has loaded the version to which an alias was moved, compared with an engine that only reads the file.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # vLLM is started as the tests start it

from tests.engines.fakes import FakeVllm
from tests.vllm import vllm_server

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.engine_probe import probe_engine as running_at
from adaptry.integrations.serving import Cache
from adaptry.integrations.serving.engine_profile import inspect_engine
from adaptry.integrations.serving.engines import ENGINES, EngineClient
from adaptry.integrations.serving.follow.loop import run_forever
from adaptry.integrations.serving.follow.reconciler import Reconciler, ReconcilerDeps
from adaptry.integrations.serving.follow.settings import FollowSettings
from adaptry.integrations.serving.worker.state_file import StateFile
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.registry.http import HttpRegistry
from adaptry.testing.samples import tiny_base, tiny_lora, write_safetensors
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

TONE = AdapterName.parse("acme/tone")
_QUIET = 0.5  # seconds between two moves of an alias, since aliases move rarely


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--megabytes", type=int, default=64)
    arguments.add_argument("--times", type=int, default=5)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_server(ServerSettings(data=folder / "data")) as server:
            measure_cache(folder, server.registry(), options.megabytes, options.times)
            measure_follow(folder, server, options.times)
            if vllm_server.PYTHON.python:
                measure_vllm(folder, server, options.times)
            else:
                print("no .venvs/vllm, so vLLM was not measured (make environments)")


def measure_cache(folder: Path, registry: HttpRegistry, megabytes: int, times: int) -> None:
    made = large(folder / "large", megabytes)
    push(registry, open_dir(made), "acme/large")
    cache = Cache(folder / "large-cache")
    ref = Ref.parse("acme/large")

    def fetch() -> None:
        cache.acquire(registry, ref)

    def forget() -> None:
        cache.close()
        cache.shrink(0)

    copied = median(times, lambda: copy(made, folder / "copy"), lambda: shutil.rmtree(folder / "copy", True))
    cold = median(times, fetch, forget)
    asked = median(4 * times, lambda: registry.versions.get(ref))
    hit = median(4 * times, fetch)
    digest = registry.versions.get(ref).digest
    here = median(4 * times, lambda: cache.acquire_local(digest))
    print(f"the cache, {megabytes} MB over HTTP, median of {times}")
    show("copied and flushed", copied, copied)
    show("fetched, verified, flushed", cold, copied)
    show("one question to the registry", asked, asked)
    show("a hit (with a request to the registry)", hit, asked)
    show("a hit by digest (without a request)", here, asked)


def measure_follow(folder: Path, server: Server, times: int) -> None:
    registry, name = server.registry(), AdapterName.parse("acme/followed")
    base = tiny_base(folder / "small")
    base_registry.register_base(
        registry, open_checkpoint(base), ("org/small",), visibility="internal", cache=folder
    )
    made = [tiny_lora(folder / f"f{seed}", seed=seed, base_name="org/small") for seed in range(1, times + 2)]
    versions = [push(registry, open_dir(each), name).version for each in made]
    engine = FakeVllm(models=("org/small",))
    deps = ReconcilerDeps(
        registry=registry,
        engine=ENGINES["vllm"](EngineClient(engine.url)),
        cache=Cache(folder / "follow-cache"),
        state_file=StateFile(folder / "state.json"),
        probe=lambda: running_at(engine.url),
        inspect=lambda found: inspect_engine(registry, found),
        log=lambda line: None,
    )
    stop = threading.Event()
    reconciler = Reconciler(deps, FollowSettings(name="gpu-1", engine="vllm", watch=("acme/followed@prod",)))
    following = threading.Thread(target=run_forever, args=(reconciler, stop))
    following.start()
    took, alias = [], None
    for version in versions:
        alias = registry.aliases.move(name, "prod", version.digest, alias.generation if alias else None)
        took.append(seconds(partial(loaded, engine, version.digest.hex)))
        time.sleep(_QUIET)
    stop.set()
    following.join()
    engine.stop()
    asked = median(4 * times, lambda: registry.versions.get(Ref(name)))
    print(f"following, an engine that only reads the file, median of {times}")
    show("one question to the registry", asked, asked)
    show("alias moved to loaded", statistics.median(took[1:]), asked)


def loaded(engine: FakeVllm, digest: str) -> None:
    """Waits until the engine has loaded it."""
    while not any(digest in path and "@prod" in name for name, path in engine.names().items()):
        time.sleep(0.001)


def measure_vllm(folder: Path, server: Server, times: int) -> None:
    from tests.vllm import models

    registry = server.registry()
    base = models.model(folder / "base")
    base_registry.register_base(
        registry, open_checkpoint(base), ("org/tiny",), visibility="internal", cache=folder
    )
    folders = [models.adapter(folder / f"a{seed}", seed=seed) for seed in range(1, times + 2)]
    versions = [push(registry, open_dir(made), TONE).version for made in folders]
    alias = registry.aliases.move(TONE, "prod", versions[0].digest, None)
    env = vllm_server.environment(
        vllm_server.installed(vllm_server.PYTHON.python, folder / "wheel"),
        folder / "home",
        ADAPTRY_URL=server.url,
        ADAPTRY_TOKEN=server.admin,
        ADAPTRY_CACHE=str(folder / "cache"),
        VLLM_ALLOW_RUNTIME_LORA_UPDATING="True",
    )
    with vllm_server.serving(vllm_server.PYTHON.python, base, env, folder / "log") as vllm:

        def answer(model: str) -> str:
            return vllm.complete(model, models.PROMPT, tokens=1).model

        answer(vllm_server.NAME)
        plain = median(4 * times, lambda: answer(vllm_server.NAME))
        answer(f"acme/tone@{times + 1}")  # the first one: reads the base, compiles kernels
        cold, warm, direct, moved = [], [], [], []
        for number in range(1, times + 1):
            name = f"acme/tone@{number}"
            cold.append(seconds(lambda name=name: answer(name)))  # type: ignore[misc]
            vllm.ask("POST", "/v1/unload_lora_adapter", {"lora_name": name})
            warm.append(seconds(lambda name=name: answer(name)))  # type: ignore[misc]
            body = {"lora_name": f"direct-{number}", "lora_path": str(folder / f"a{number}")}
            direct.append(
                seconds(
                    lambda body=body: (
                        vllm.ask("POST", "/v1/load_lora_adapter", body),
                        answer(body["lora_name"]),
                    )
                )  # type: ignore[misc]
            )
        loaded = median(4 * times, lambda: answer("acme/tone@1"))
        answer("acme/tone@prod")
        for version in versions[1:]:
            time.sleep(_QUIET)
            alias = registry.aliases.move(TONE, "prod", version.digest, alias.generation)
            began = time.perf_counter()
            while version.digest.brief not in answer("acme/tone@prod"):
                pass
            moved.append(time.perf_counter() - began)
    print(f"vLLM, one token of a tiny model on this CPU, median of {times}")
    show("the base", plain, plain)
    show("an adapter that is loaded", loaded, plain)
    by_path = statistics.median(direct)
    show("loaded by path, then requested", by_path, by_path)
    show("requested, with its files in the cache", statistics.median(warm), by_path)
    show("requested, with nothing in the cache", statistics.median(cold), by_path)
    show("alias moved to first answer", statistics.median(moved), by_path)


def large(folder: Path, megabytes: int) -> Path:
    """An adapter of this many megabytes, with rank 4."""
    made = tiny_lora(folder)
    wide = megabytes << 15
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    values = bytes(range(64)) * (wide // 4)
    shapes = {"A": (4, wide), "B": (wide, 4)}
    tensors = {f"{module}.lora_{side}.weight": ("F32", shape, values) for side, shape in shapes.items()}
    write_safetensors(made / "adapter_model.safetensors", tensors)
    return made


def copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target)
    for path in target.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def median(times: int, work: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    found = []
    for _ in range(times):
        before()
        found.append(seconds(work))
    return statistics.median(found)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def show(what: str, took: float, beside: float) -> None:
    print(f"  {what:34} {1000 * took:9.1f} ms   {took / beside:6.2f}×")


if __name__ == "__main__":
    main()
