"""Several adapters in one request (`acme/tone+acme/facts=0.5`), combined on the machine that runs vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import CheckFailed, StorageFull, Withdrawn
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.serving import Cache
from adaptry.operations.recall_status import recall_status
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.testing.samples import tiny_lora

from .bench import Bench

torch = pytest.importorskip("torch", reason="stacks are computed where torch is")

Publish = Callable[..., VersionInfo]
TONE, FACTS = AdapterName.parse("acme/tone"), AdapterName.parse("acme/facts")
BOTH = "acme/tone@prod+acme/facts@1=0.5"


@pytest.fixture
def both(bench: Bench, publish: Publish) -> tuple[VersionInfo, VersionInfo]:
    tone, facts = publish(seed=1), publish(seed=2, name="acme/facts")
    bench.registry.aliases.move(TONE, "prod", tone.digest, None)
    return tone, facts


def updates(folder: Path) -> dict[str, Any]:
    """The update that an adapter adds to each weight, by the name of the module. (`Any`: tensors.)"""
    from safetensors.torch import load_file

    config = open_dir(folder).config
    found = load_file(folder / "adapter_model.safetensors")
    return {
        name: found[name.replace("lora_A", "lora_B")]
        @ tensor
        * (config.number("lora_alpha", 8) / config.rank())
        for name, tensor in found.items()
        if "lora_A" in name
    }


def test_a_stack_is_exactly_the_weighted_sum_of_its_parts(
    bench: Bench, both: tuple[VersionInfo, VersionInfo], tmp_path: Path
) -> None:
    async def test() -> None:
        made = await bench.ask(BOTH)
        assert made
        sums, tone, facts = map(updates, (Path(made), tmp_path / "out-1-16", tmp_path / "out-2-16"))
        assert sums.keys() == tone.keys() | facts.keys()
        for name, value in sums.items():
            torch.testing.assert_close(value, tone[name] + 0.5 * facts[name], rtol=1e-5, atol=1e-9)
        (request,) = bench.models.lora_requests.values()
        briefs = [version.digest.brief for version in both]
        assert request.lora_name == f"acme/tone@{briefs[0]}+acme/facts@{briefs[1]}=0.5"
        assert await bench.ask(request.lora_name) == made
        assert await bench.ask("acme/facts@1=0.5+acme/tone@prod") == made

    asyncio.run(test())


def test_one_adapter_can_have_a_weight(
    bench: Bench, both: tuple[VersionInfo, VersionInfo], tmp_path: Path
) -> None:
    async def test() -> None:
        made = await bench.ask("acme/tone@prod=0.25")
        assert made
        whole = updates(tmp_path / "out-1-16")
        for name, value in updates(Path(made)).items():
            torch.testing.assert_close(value, 0.25 * whole[name], rtol=1e-5, atol=1e-9)

    asyncio.run(test())


def test_a_stack_follows_the_alias_of_a_part(
    bench: Bench, both: tuple[VersionInfo, VersionInfo], publish: Publish
) -> None:
    async def test() -> None:
        before = await bench.ask(BOTH)
        bench.registry.aliases.move(TONE, "prod", publish(seed=3).digest, 1)
        await bench.look()
        after = await bench.ask(BOTH)
        assert before and after and before != after
        await bench.look()
        assert not Path(before).exists()
        assert list(bench.models.engine_client.held.values()) == [after]

    asyncio.run(test())


@pytest.mark.parametrize("part", [0, 1])
def test_a_recall_of_any_part_reaches_the_stack(
    bench: Bench, both: tuple[VersionInfo, VersionInfo], cache: Cache, part: int
) -> None:
    version = both[part]
    ref = Ref.of_revision(version.name, version.digest)

    async def test() -> None:
        made = await bench.ask(BOTH)
        assert made
        end = bench.models.begin(BOTH)
        change_state(bench.registry.there, ref, StateChange(state="revoked", reason="it leaks"))
        await bench.look()
        assert not recall_status(bench.registry.there, ref).is_complete
        assert cache.has_files(version.digest)
        end()
        await bench.look()
        assert recall_status(bench.registry.there, ref).is_complete
        assert not Path(made).exists()
        assert not bench.models.engine_client.held
        with pytest.raises(Withdrawn, match="it leaks"):
            await bench.ask(BOTH)

    asyncio.run(test())


def test_a_recall_removes_stacks_of_other_processes(
    bench: Bench, both: tuple[VersionInfo, VersionInfo], cache: Cache
) -> None:
    async def test() -> None:
        made = await bench.ask(BOTH)
        assert made
        other = Cache(cache.root)
        other.recall(both[1].digest, "it leaks")
        assert other.has_files(both[1].digest)
        assert Path(made).exists()
        cache.stacks.release(Path(made).parent.name)
        cache.close()
        assert not other.has_files(both[1].digest)

    asyncio.run(test())


def test_stacks_count_towards_the_size_of_the_cache_and_stay_while_they_are_loaded(
    bench: Bench, both: tuple[VersionInfo, VersionInfo], publish: Publish, cache: Cache
) -> None:
    other = publish(seed=3, name="acme/other")

    async def test() -> None:
        made = await bench.ask(BOTH)
        assert made
        (stack,) = cache.stacks.sizes()
        assert stack == sum(path.stat().st_size for path in Path(made).iterdir())
        full = Cache(cache.root, sum(entry.size for entry in cache.entries()) + stack)
        with pytest.raises(StorageFull, match=r"use acme/.* and 1 stack: "):
            full.acquire(bench.registry, other.revision_ref)
        assert full.shrink(0) == ()
        assert Path(made).exists()
        bench.models.lora_requests.clear()  # unloaded by another client
        await bench.look()
        assert cache.stacks.sizes() == ()
        assert full.acquire(bench.registry, other.revision_ref)
        full.close()

    asyncio.run(test())


def test_a_stack_that_the_cache_has_no_room_for_waits_until_an_idle_adapter_has_made_some(
    bench: Bench, both: tuple[VersionInfo, VersionInfo], publish: Publish, base: Path, tmp_path: Path
) -> None:
    publish(seed=3, name="acme/idle")
    one = sum(path.stat().st_size for path in (tmp_path / "out-3-16").iterdir())

    async def test() -> None:
        cramped = Bench(bench.registry, base, Cache(tmp_path / "small", 3 * one + one // 4))
        await cramped.ask("acme/idle")
        assert await cramped.ask(BOTH)
        assert list(cramped.models.lora_requests) == [BOTH]

    asyncio.run(test())


def test_a_stack_that_is_not_an_exact_sum_or_is_too_wide_is_refused_with_the_reason(
    bench: Bench, both: tuple[VersionInfo, VersionInfo], tmp_path: Path
) -> None:
    wide = push(bench.registry, open_dir(tiny_lora(tmp_path / "wide", rank=15)), "acme/wide").version
    pissa = {"init_lora_weights": "pissa"}
    push(bench.registry, open_dir(tiny_lora(tmp_path / "pissa", config=pissa)), "acme/pissa")

    async def test() -> None:
        assert await bench.ask("acme/wide")
        with pytest.raises(CheckFailed, match=r"acme/tone@prod\+acme/wide on vllm.*the server's limit is 16"):
            await bench.ask("acme/tone@prod+acme/wide")
        with pytest.raises(CheckFailed, match="acme/pissa@1 on vllm"):
            await bench.ask("acme/tone@prod+acme/pissa")
        with pytest.raises(CheckFailed, match="add up to 0"):
            await bench.ask("acme/tone@prod+acme/tone@1=-1")
        assert await bench.ask("acme/tone@prod+acme/nothing") is None
        assert [request.lora_path for request in bench.models.lora_requests.values()] == [
            str(bench.served._config.cache.root / wide.digest.hex / "adapter")
        ]

    asyncio.run(test())


@pytest.mark.parametrize(
    "name",
    [
        "acme/tone+",
        "+acme/tone",
        "acme/tone=",
        "acme/tone=0",
        "acme/tone=nan",
        "acme/tone=1e3",
        "acme/tone+acme/tone=2",
        "+".join(f"acme/tone-{number}" for number in range(9)),
    ],
)
def test_a_name_that_is_not_a_stack_is_ignored(bench: Bench, name: str) -> None:
    assert asyncio.run(bench.ask(name)) is None
    assert bench.registry.asked == 0
