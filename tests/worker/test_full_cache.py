"""A vLLM whose cache is full of adapters that it has loaded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from adaptry.core.errors import StorageFull
from adaptry.integrations.serving import Cache
from adaptry.integrations.serving.vllm.engine import InProcessVllm

from .bench import Bench
from .conftest import Publish


def test_a_full_cache_makes_room_for_names_that_clients_request(
    bench: Bench, base: Path, publish: Publish, tmp_path: Path
) -> None:
    """For each, the least recently used idle adapter is unloaded, and its request waits for that."""
    for seed, name in enumerate("abcde"):
        publish(seed=seed, name=f"acme/{name}")
    size = sum(path.stat().st_size for path in next(tmp_path.glob("out-*")).iterdir())
    full = Bench(bench.registry, base, Cache(tmp_path / "small", 3 * size + 999))

    async def test() -> None:
        for name in "abc":
            await full.ask(f"acme/{name}")
        end = full.models.begin("acme/b")
        assert all(await asyncio.gather(full.ask("acme/d"), full.ask("acme/e")))
        assert set(full.models.lora_requests) == {"acme/b", "acme/d", "acme/e"}
        more = [end, *(full.models.begin(f"acme/{name}") for name in "de")]
        with pytest.raises(StorageFull, match=r"do not fit.*request it again when fewer adapters are in use"):
            await full.ask("acme/a")
        for done in more:
            done("stop")

    asyncio.run(test())


def test_names_are_refreshed_while_a_request_for_a_preloaded_one_waits(
    bench: Bench, base: Path, cache: Cache, publish: Publish
) -> None:
    publish(seed=1)
    loading = Bench(bench.registry, base, cache, preload=("acme/tone@1",))

    async def test() -> None:
        async with loading.models.lora_resolver_lock["acme/tone@1"]:
            await asyncio.wait_for(loading.look(), 60)
        assert not loading.models.lora_requests
        await loading.look()
        assert list(loading.models.lora_requests) == ["acme/tone@1"]

    asyncio.run(test())


def test_two_refreshes_at_once_do_not_wait_for_room_for_a_preloaded_name(
    bench: Bench, base: Path, publish: Publish, tmp_path: Path
) -> None:
    """No client waits for this name, so it must not wait for the unloading of an adapter that is in use."""
    publish(seed=0, name="acme/a")
    publish(seed=1, name="acme/b")
    size = sum(path.stat().st_size for path in next(tmp_path.glob("out-*")).iterdir())
    small = Cache(tmp_path / "small", size + 999)
    full = Bench(bench.registry, base, small, preload=("acme/b",), refused_for=0.0)

    may_go_on = asyncio.Event()

    async def slowly(name: str) -> object:
        if name == "acme/b":
            await may_go_on.wait()
        return await full.served.resolve(InProcessVllm(full.models), name)

    full.models._resolve = slowly

    async def test() -> None:
        await full.ask("acme/a")  # and the resolver begins to refresh
        end = full.models.begin("acme/a")
        while not full.models.lora_resolver_lock["acme/b"].locked():
            await asyncio.sleep(0)
        second = asyncio.create_task(full.look())
        while not full.models.lora_resolver_lock["acme/b"]._waiters:
            await asyncio.sleep(0)
        may_go_on.set()
        await second
        assert full.served._problems.reasons.keys() == {"acme/b"}
        assert "when fewer adapters are in use" not in full.served._problems.reasons["acme/b"]
        end("stop")

    asyncio.run(test())
