"""The vLLM plugin as a worker: what it reports and when, how it proves recalls and follows rollouts, and how
it serves while the registry is unreachable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Conflict, Invalid, StorageFull, Unavailable, Withdrawn
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.serving import Cache
from adaptry.integrations.serving.vllm.metrics import ResolverMetrics
from adaptry.integrations.serving.vllm.names import PLUGIN_ANSWER, PLUGIN_PROBE
from adaptry.operations.recall_status import recall_status
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.registry.rollouts import RolloutChange, RolloutPlan
from adaptry.storage.local import LocalRegistry
from adaptry.testing.samples import tiny_lora

from .bench import Bench, Flapping
from .recorded_vllm import EngineClient, LoRARequest

Publish = Callable[..., VersionInfo]
TONE = AdapterName.parse("acme/tone")
PROD = "acme/tone@prod"


def held(bench: Bench) -> dict[tuple[str, int], str]:
    """The worker's versions according to the registry: the condition by name and number."""
    found = bench.registry.there.workers.get("gpu-1").residents
    return {(one.served_as, one.number): one.condition for one in found}


def revoke(bench: Bench, ref: str) -> None:
    change_state(bench.registry.there, Ref.parse(ref), StateChange(state="revoked", reason="it leaks"))


def outcomes(bench: Bench, ref: str) -> list[str]:
    return [one.outcome for one in recall_status(bench.registry.there, Ref.parse(ref)).lines]


def test_a_version_is_reported_before_it_is_loaded_and_as_served_afterwards(
    bench: Bench, publish: Publish
) -> None:
    first = publish()
    bench.registry.there.aliases.move(TONE, "prod", first.digest, None)
    before: list[dict[tuple[str, int], str]] = []

    class Observed(EngineClient):
        async def add_lora(self, request: LoRARequest) -> bool:
            before.append(held(bench))
            return await super().add_lora(request)

    bench.models.engine_client = Observed(bench.models.engine_client.limits)

    async def test() -> None:
        await bench.ask(PROD)
        await bench.look()
        worker = bench.registry.there.workers.get("gpu-1")
        assert before == [{(PROD, 1): "loading"}]
        assert held(bench) == {(PROD, 1): "serving"}
        assert (worker.engine, worker.version) == ("vllm", "0.32.0")
        assert worker.max_age == 86_400

    asyncio.run(test())


def test_the_engine_is_reported_while_it_takes_long_to_load_the_version_that_an_alias_moved_to(
    bench: Bench, publish: Publish
) -> None:
    """Otherwise its report would expire, and it would count as silent."""
    first, second = publish(), publish(seed=2)
    bench.registry.aliases.move(TONE, "prod", first.digest, None)
    bench = bench.restarted(report_interval=0.01)
    seen: list[dict[tuple[str, int], str]] = []

    class Slow(EngineClient):
        async def add_lora(self, request: LoRARequest) -> bool:
            if second.digest.hex in request.lora_path:
                reports = bench.registry.there.workers
                before = reports.get("gpu-1").reported_at
                async with asyncio.timeout(60):
                    while reports.get("gpu-1").reported_at == before:
                        await asyncio.sleep(0)
                seen.append(held(bench))
            return await super().add_lora(request)

    async def test() -> None:
        bench.models.engine_client = Slow(bench.models.engine_client.limits)
        await bench.ask(PROD)
        await bench.look()
        bench.registry.aliases.move(TONE, "prod", second.digest, 1)
        await bench.look()
        assert seen == [{(PROD, 1): "serving", (PROD, 2): "loading"}]

    asyncio.run(test())


def test_metrics_have_each_loaded_version_once(bench: Bench, publish: Publish) -> None:
    version, facts = publish(), publish(seed=2, name="acme/facts")
    bench.registry.aliases.move(TONE, "prod", version.digest, None)

    async def test() -> None:
        for name in (PROD, "acme/tone@1", "acme/facts"):
            await bench.ask(name)
        end = bench.models.begin(PROD)
        await bench.look()
        end()
        found = {one.name: one.samples for one in ResolverMetrics(bench.served, "tiny").collect()}
        assert {tuple(sample.labels.values()) for sample in found["adaptry_adapter_loaded"]} == {
            ("acme/tone", "1", version.digest.brief, "vllm"),
            ("acme/facts", "1", facts.digest.brief, "vllm"),
        }
        (used,) = found["adaptry_adapter_last_used_timestamp_seconds"]
        assert used.labels["adapter"] == "acme/tone"
        assert [sample.value for sample in found["adaptry_registry_up"]] == [1]

    asyncio.run(test())


def test_requests_and_tokens_are_counted_by_version_under_any_name(bench: Bench, publish: Publish) -> None:
    version = publish()
    bench.registry.aliases.move(TONE, "prod", version.digest, None)

    async def test() -> None:
        for name in (PROD, "acme/tone@1"):
            await bench.ask(name)
            for reason in ("stop", "abort"):
                bench.models.begin(name)(reason)
        found = {one.name: one.samples for one in ResolverMetrics(bench.served, "tiny").collect()}
        requests, tokens = found["adaptry_adapter_requests"], found["adaptry_adapter_tokens"]
        assert {one.labels["status"]: one.value for one in requests} == {"200": 2, "499": 2}
        assert {one.labels["kind"]: one.value for one in tokens} == {"prompt": 12, "completion": 8}
        assert found["adaptry_adapter_last_used_timestamp_seconds"]

    asyncio.run(test())


def test_preloaded_names_are_loaded_before_requests_and_never_evict_others(
    bench: Bench, base: Path, publish: Publish, tmp_path: Path
) -> None:
    version = publish()
    bench.registry.aliases.move(TONE, "prod", version.digest, None)
    publish(seed=2, name="acme/facts")
    size = sum(path.stat().st_size for path in (tmp_path / "out-1-16").iterdir())
    full = Bench(bench.registry, base, Cache(tmp_path / "small", size), preload=(PROD, "acme/nothing"))

    async def test() -> None:
        await full.look()
        assert list(full.models.lora_requests) == [PROD]
        with pytest.raises(StorageFull):
            await full.ask("acme/facts")
        await full.look()
        assert list(full.models.lora_requests) == [PROD]

    asyncio.run(test())


def test_a_pinned_name_stays_in_the_engine_under_other_requests(
    bench: Bench, base: Path, cache: Cache, publish: Publish
) -> None:
    publish()
    for seed, name in enumerate(("acme/one", "acme/two", "acme/three"), start=2):
        publish(seed=seed, name=name)
    pinning = Bench(bench.registry, base, cache, pin=("acme/tone@1",))
    pinning.models.engine_client.limits["max_cpu_loras"] = 2

    async def test() -> None:
        await pinning.look()
        pinned = Path(pinning.models.lora_requests["acme/tone@1"].lora_path).parent.name[:12]
        for name in ("acme/one", "acme/two", "acme/three"):
            await pinning.ask(name)
            await pinning.look()
            assert pinned in pinning.held
        await pinning.ask("acme/one@1")
        await pinning.ask("acme/two@1")
        assert pinned not in pinning.held
        await pinning.look()
        assert pinned in pinning.held

    asyncio.run(test())


def test_a_pinned_alias_that_moved_keeps_its_new_version(
    bench: Bench, base: Path, cache: Cache, publish: Publish
) -> None:
    first, second = publish(seed=1), publish(seed=2)
    seen_at = bench.registry.aliases.move(TONE, "prod", first.digest, None)
    pinning = Bench(bench.registry, base, cache, pin=(PROD,))

    async def test() -> None:
        await pinning.look()
        bench.registry.aliases.move(TONE, "prod", second.digest, seen_at.generation)
        await pinning.look()
        assert pinning.held == {second.digest.hex[:12]}

    asyncio.run(test())


def test_more_pinned_names_than_slots_are_refused(bench: Bench, base: Path, cache: Cache) -> None:
    pinning = Bench(bench.registry, base, cache, pin=("acme/one", "acme/two", "acme/three"))

    async def test() -> None:
        with pytest.raises(Invalid, match="ADAPTRY_PIN has 3 names, but vLLM has only 2 slots"):
            await pinning.look()

    asyncio.run(test())


def test_a_version_that_cannot_be_reported_is_not_loaded(bench: Bench, publish: Publish) -> None:
    publish()

    async def test() -> None:
        bench.registry.broken = "LocalWorkers.report"
        with pytest.raises(Unavailable):
            await bench.ask("acme/tone@1")
        assert bench.held == set()
        bench.registry.broken = None
        await bench.look()
        again = bench.restarted()
        assert await again.ask("acme/tone@1")

    asyncio.run(test())


def test_a_moved_alias_is_reported_with_the_adapters_that_drain(bench: Bench, publish: Publish) -> None:
    first, second = publish(seed=1), publish(seed=2)
    seen_at = bench.registry.there.aliases.move(TONE, "prod", first.digest, None)

    async def test() -> None:
        await bench.ask(PROD)
        end = bench.models.begin(PROD)
        bench.registry.there.aliases.move(TONE, "prod", second.digest, seen_at.generation)
        await bench.look()
        assert held(bench) == {(PROD, 1): "draining", (PROD, 2): "serving"}
        end()
        await bench.look()
        assert held(bench) == {(PROD, 2): "serving"}

    asyncio.run(test())


def test_a_recall_is_proved_once_no_request_uses_it(bench: Bench, publish: Publish) -> None:
    publish()

    async def test() -> None:
        await bench.ask("acme/tone@1")
        end = bench.models.begin("acme/tone@1")
        revoke(bench, "acme/tone@1")
        await bench.look()
        assert outcomes(bench, "acme/tone@1") == ["serving"]
        end()
        await bench.look()
        assert outcomes(bench, "acme/tone@1") == ["dropped"]
        assert recall_status(bench.registry.there, Ref.parse("acme/tone@1")).is_complete

    asyncio.run(test())


def test_a_recall_reaches_the_same_files_under_another_adapters_name(bench: Bench, publish: Publish) -> None:
    publish()
    publish(name="acme/copy")
    there, ref = bench.registry.there, Ref.parse("acme/tone@1")

    async def test() -> None:
        for name in ("acme/tone@1", "acme/copy@1"):
            await bench.ask(name)
        revoke(bench, "acme/tone@1")
        change_state(there, ref, StateChange(state="active", reason="a mistake"))
        revoke(bench, "acme/copy@1")
        for _ in range(2):
            await bench.look()
        assert recall_status(there, Ref.parse("acme/copy@1")).is_complete
        with pytest.raises(Withdrawn, match="acme/tone@1 has the same files as a version of acme/copy"):
            await bench.ask("acme/tone@1")
        copy = Ref.parse("acme/copy@1")
        change_state(there, copy, StateChange(state="active", reason="a mistake"))
        bench.served._refusals.clear()
        assert await bench.ask("acme/copy@1")
        assert await bench.ask("acme/tone@1")

    asyncio.run(test())


def test_a_recall_stays_open_while_the_engine_is_cut_off(bench: Bench, publish: Publish) -> None:
    publish()

    async def test() -> None:
        folder = await bench.ask("acme/tone@1")
        await bench.look()
        bench.registry.is_away = True
        revoke(bench, "acme/tone@1")
        await bench.look()
        assert await bench.ask("acme/tone@1") == folder
        assert not recall_status(bench.registry.there, Ref.parse("acme/tone@1")).is_complete
        bench.registry.is_away = False
        await bench.look()
        await bench.look()
        assert outcomes(bench, "acme/tone@1") == ["dropped"]
        with pytest.raises(Withdrawn, match="it leaks"):
            await bench.ask("acme/tone@1")

    asyncio.run(test())


def test_a_restarted_worker_proves_recalls_of_its_former_versions(
    bench: Bench, publish: Publish, base: Path, cache: Cache, registry: LocalRegistry
) -> None:
    publish()

    async def first() -> None:
        await bench.ask("acme/tone@1")
        await bench.look()

    asyncio.run(first())
    revoke(bench, "acme/tone@1")
    again = bench.restarted()

    async def second() -> None:
        await again.look()
        assert outcomes(again, "acme/tone@1") == ["dropped"]
        assert cache.entries() == ()

    asyncio.run(second())


def test_a_version_loaded_by_hand_is_reported_and_recalled_too(
    bench: Bench, publish: Publish, cache: Cache
) -> None:
    version = publish()

    async def test() -> None:
        folder = cache.acquire(bench.registry.there, "acme/tone@1").path
        by_hand = LoRARequest("acme/tone@1", 99, str(folder))
        await bench.models.engine_client.add_lora(by_hand)
        bench.models.lora_requests["acme/tone@1"] = by_hand
        await bench.look()
        assert held(bench) == {("acme/tone@1", 1): "serving"}
        (problem,) = bench.registry.there.workers.get("gpu-1").problems
        assert "one engine has one worker" in problem.reason
        revoke(bench, "acme/tone@1")
        await bench.look()
        await bench.look()
        assert version.digest.hex[:12] not in bench.held
        assert outcomes(bench, "acme/tone@1") == ["dropped"]

    asyncio.run(test())


def test_a_worker_without_the_right_to_report_serves_and_logs_it_once(
    registry: LocalRegistry, base: Path, cache: Cache, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    publish()
    reader = registry.on_behalf_of(Identity.with_role("ron", "reader", ("acme", "org")))
    bench = Bench(Flapping(reader.context), base, cache)

    async def test() -> None:
        assert await bench.ask("acme/tone@1")
        await bench.look()
        await bench.look()

    asyncio.run(test())
    said = [one.message for one in caplog.records if "cannot report" in one.message]
    assert len(said) == 1
    assert "--role worker" in said[0]


def test_a_rollout_reaches_the_engine_and_stops_where_its_version_does_not_fit(
    bench: Bench, publish: Publish, tmp_path: Path
) -> None:
    there = bench.registry.there
    first, second = publish(seed=1), publish(seed=2)
    wide = push(there, open_dir(tiny_lora(tmp_path / "wide", rank=32)), TONE).version
    there.aliases.move(TONE, "prod", first.digest, None)

    async def serves(version: VersionInfo) -> None:
        async with asyncio.timeout(60):  # the rollout's event is received
            while version.digest.hex not in (await bench.ask(PROD) or ""):
                await bench.look()

    async def test() -> None:
        await bench.ask(PROD)
        await bench.look()
        there.rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50, 100)))
        await serves(second)
        await bench.look()
        assert held(bench)[PROD, 2] == "serving"
        rollout = there.rollouts.list(TONE)[0]
        there.rollouts.change(TONE, "prod", RolloutChange(to="abort"), rollout.generation)
        await serves(first)

        there.rollouts.start(TONE, "prod", wide.digest, RolloutPlan(steps=(50, 100)))
        async with asyncio.timeout(60):
            while there.rollouts.list(TONE)[0].stage == "running":
                await bench.look()
        stopped = there.rollouts.list(TONE)[0]
        assert stopped.stage == "stopped"
        assert "rank is 32, but the server's limit is 16" in (stopped.reason or "")
        assert first.digest.hex in (await bench.ask(PROD) or "")

    asyncio.run(test())


def test_a_restarted_engine_serves_known_versions_while_the_registry_is_unreachable(
    bench: Bench, publish: Publish
) -> None:
    first, second = publish(seed=1), publish(seed=2)
    bench.registry.there.aliases.move(TONE, "prod", first.digest, None)

    async def before() -> None:
        await bench.ask(PROD)

    asyncio.run(before())
    bench.registry.is_away = True
    again = bench.restarted()

    async def after() -> None:
        for name in (PROD, "acme/tone@1", f"{PROD}@{first.digest.brief}"):
            assert first.digest.hex in (await again.ask(name) or "")
        with pytest.raises(Unavailable, match="is the server running"):
            await again.ask("acme/tone@2")
        assert second.digest.hex[:12] not in again.held

    asyncio.run(after())


def test_known_versions_are_refused_after_a_day_without_the_registry(bench: Bench, publish: Publish) -> None:
    publish()
    clock = [datetime(2026, 11, 28, tzinfo=UTC)]
    aging = bench.restarted(now=lambda: clock[0], refused_for=0.0)

    async def test() -> None:
        await aging.ask("acme/tone@1")
        aging.registry.is_away = True
        clock[0] += timedelta(hours=23)
        await aging.look()
        assert await aging.ask("acme/tone@1")
        clock[0] += timedelta(hours=2)
        await aging.look()
        with pytest.raises(Unavailable, match="a name is served for 24 h"):
            await aging.ask("acme/tone@1")
        aging.registry.is_away = False
        await aging.look()
        assert await aging.ask("acme/tone@1")

    asyncio.run(test())


def test_a_known_recall_never_expires(bench: Bench, publish: Publish) -> None:
    publish()

    async def before() -> None:
        await bench.ask("acme/tone@1")
        revoke(bench, "acme/tone@1")
        await bench.look()
        await bench.look()

    asyncio.run(before())
    bench.registry.is_away = True
    again = bench.restarted()

    async def after() -> None:
        with pytest.raises(Withdrawn, match="it leaks"):
            await again.ask("acme/tone@1")

    asyncio.run(after())


def test_an_alias_of_a_lower_generation_than_was_seen_is_not_followed(bench: Bench, publish: Publish) -> None:
    first, second = publish(seed=1), publish(seed=2)
    there = bench.registry.there
    seen_at = there.aliases.move(TONE, "prod", first.digest, None)
    there.aliases.move(TONE, "prod", second.digest, seen_at.generation)

    async def before() -> None:
        assert second.digest.hex in (await bench.ask(PROD) or "")

    asyncio.run(before())
    again = bench.restarted()
    again.registry.lagging = {"prod": seen_at}  # like the answer of a replica that lags behind

    async def after() -> None:
        assert second.digest.hex in (await again.ask(PROD) or "")
        await again.look()
        assert second.digest.hex in (await again.ask(PROD) or "")

    asyncio.run(after())


def test_a_flood_of_unknown_names_does_not_slow_known_ones(
    registry: LocalRegistry, base: Path, cache: Cache, publish: Publish
) -> None:
    versions = [publish(seed=seed) for seed in (1, 2, 3)]
    bench = Bench(Flapping(registry.context), base, cache)

    async def before() -> None:
        for version in versions:
            await bench.ask(f"acme/tone@{version.number}")

    asyncio.run(before())
    again = bench.restarted(clock=lambda: 0.0)

    async def flood() -> None:
        with pytest.raises(Unavailable, match="too many requests for adapters"):
            for number in range(200):
                await again.ask(f"acme/nonsense-{number}")
        for version in versions:
            assert await again.ask(f"acme/tone@{version.number}")

    asyncio.run(flood())


def test_the_plugin_logs_that_it_is_active(bench: Bench) -> None:
    async def test() -> None:
        with pytest.raises(Conflict, match=f"{PLUGIN_ANSWER}gpu-1"):
            await bench.ask(PLUGIN_PROBE)

    asyncio.run(test())


def test_two_engines_of_a_machine_do_not_report_under_one_name(
    bench: Bench, base: Path, cache: Cache
) -> None:
    other = Bench(bench.registry, base, cache)

    async def test() -> None:
        await bench.look()
        with pytest.raises(Conflict, match="another process with this cache reports as gpu-1"):
            await other.look()

    asyncio.run(test())
