"""The vLLM plugin under faults: a full cache, a wrong clock, names that disappear during a refresh, and a
worker that cannot start.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import CheckFailed, Conflict, RevisionNotFound, Unauthenticated, Unavailable
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.serving import Cache
from adaptry.integrations.serving.cache.cache import CachedAdapter
from adaptry.integrations.serving.vllm.names import PLUGIN_ANSWER, PLUGIN_PROBE
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.interface import Registry
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.testing.samples import tiny_base, tiny_lora

from .bench import Bench
from .recorded_vllm import EngineClient, LoRARequest

Publish = Callable[..., VersionInfo]
PROD = "acme/tone@prod"


def problems(bench: Bench) -> dict[str, str]:
    found = bench.registry.there.workers.get("gpu-1").problems
    return {one.served_as: one.reason for one in found}


def point(bench: Bench, name: str, to: VersionInfo) -> None:
    adapter = AdapterName.parse(name)
    held = {one.alias: one.generation for one in bench.registry.there.aliases.list(adapter)}
    bench.registry.there.aliases.move(adapter, "prod", to.digest, held.get("prod"))


def test_a_newer_version_that_the_cache_has_no_room_for_is_reported_until_it_is_served(
    bench: Bench, base: Path, publish: Publish, tmp_path: Path
) -> None:
    first, second = publish(seed=1), publish(seed=2)
    point(bench, "acme/tone", first)
    full = Bench(bench.registry, base, Cache(tmp_path / "small", first.size + 10), pin=(PROD,))

    async def test() -> None:
        assert first.digest.hex in (await full.ask(PROD) or "")
        point(full, "acme/tone", second)
        await full.look()
        assert first.digest.hex in (await full.ask(PROD) or "")
        assert "the previous version is still served" in problems(full)[PROD]
        assert "do not fit into the cache" in problems(full)[PROD]
        point(full, "acme/tone", first)
        await full.look()
        assert problems(full) == {}

    asyncio.run(test())


def test_a_name_that_was_unloaded_while_it_was_refreshed_does_not_disturb_others(
    bench: Bench, base: Path, publish: Publish, tmp_path: Path
) -> None:
    """The engine refuses the newer version of facts if that of tone takes the place of facts in the cache."""
    names = ("acme/facts", "acme/tone")
    old = [publish(seed=seed, name=name) for seed, name in zip((1, 2), names, strict=True)]
    for name, version in zip(names, old, strict=True):
        point(bench, name, version)
    is_newer, facts_fetched = False, threading.Event()

    class FactsFirst(Cache):
        """Fetches the newer version of facts before that of tone."""

        def acquire(
            self, registry: Registry, ref: Ref | str, progress: Progress = no_progress
        ) -> CachedAdapter:
            if is_newer and "tone" in str(ref):
                assert facts_fetched.wait(60)
            try:
                return super().acquire(registry, ref, progress)
            finally:
                if is_newer and "facts" in str(ref):
                    facts_fetched.set()

    full = Bench(bench.registry, base, FactsFirst(tmp_path / "small", 3 * old[0].size + 10))

    class Slow(EngineClient):
        """Refuses the third adapter once facts has been unloaded."""

        async def add_lora(self, request: LoRARequest) -> bool:
            if "acme/facts" in request.lora_name and len(self.held) > 1:
                while "acme/facts@prod" in full.models.lora_requests:
                    await asyncio.sleep(0)
                raise ValueError("no")
            return await super().add_lora(request)

    async def test() -> None:
        nonlocal is_newer
        full.models.engine_client = Slow(full.models.engine_client.limits)
        for name in names:
            await full.ask(f"{name}@prod")
        for seed, name in zip((3, 4), names, strict=True):
            point(full, name, publish(seed=seed, name=name))
        is_newer = True
        await full.look()
        assert "do not fit into the cache" in problems(full)[PROD]
        assert "vLLM refuses to load it" in problems(full)["acme/facts@prod"]

    asyncio.run(test())


def test_a_confirmation_made_with_a_wrong_clock_is_replaced_by_the_next_one(
    bench: Bench, publish: Publish
) -> None:
    version = publish()
    point(bench, "acme/tone", version)
    now = datetime(2026, 11, 28, tzinfo=UTC)
    ahead = bench.restarted(now=lambda: now + timedelta(days=400))
    asyncio.run(_served(ahead))
    right = ahead.restarted(now=lambda: now)
    asyncio.run(_served(right))
    again = right.restarted(now=lambda: now + timedelta(hours=1))
    again.registry.is_away = True

    async def test() -> None:
        assert version.digest.hex in (await again.ask(PROD) or "")

    asyncio.run(test())


async def _served(bench: Bench) -> None:
    await bench.ask(PROD)
    await bench.look()


def test_names_and_stacks_beyond_the_maximum_take_the_place_of_idle_ones(
    bench: Bench, base: Path, cache: Cache, publish: Publish
) -> None:
    """Clients can request any number of names of one version, and of stacks with other weights."""
    version = publish()
    exact = f"acme/tone@{version.digest.brief}"
    few = Bench(bench.registry, base, cache, most_names=4, most_stacks=2, pin=("acme/tone@1",))

    async def test() -> None:
        await few.ask("acme/tone@1")
        for number in range(9):
            await few.ask(f"acme/tone=0.{number + 1}")
        assert len(cache.stacks.sizes()) == 9
        await few.look()
        assert list(few.models.lora_requests) == ["acme/tone@1", "acme/tone=0.8", "acme/tone=0.9"]
        assert len(cache.stacks.sizes()) == 2
        for number in range(9):
            await few.ask(f"{exact}~{number}")
        end = few.models.begin(f"{exact}~8")
        for number in range(9, 13):
            await few.ask(f"{exact}~{number}")
        assert len(few.models.lora_requests) == 4
        assert {"acme/tone@1", f"{exact}~8"} <= few.models.lora_requests.keys()
        end()

    asyncio.run(test())


def test_unknown_names_unload_nothing_at_the_maximum(
    bench: Bench, base: Path, cache: Cache, publish: Publish
) -> None:
    version = publish()
    few = Bench(bench.registry, base, cache, most_names=2)

    async def test() -> None:
        for number in range(2):
            await few.ask(f"acme/tone@{version.digest.brief}~{number}")
        loaded = list(few.models.lora_requests)
        assert len(loaded) == 2
        for unknown in ("acme/tone@9", "acme/none@1", "acme/tone@none"):
            assert await few.ask(unknown) is None
        await few.look()
        assert list(few.models.lora_requests) == loaded

    asyncio.run(test())


def test_a_version_that_a_report_has_no_room_for_is_not_loaded(
    bench: Bench, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the registry would not know about it, and would report its recall as complete."""
    monkeypatch.setattr("adaptry.integrations.serving.vllm.worker.MAX_RESIDENTS", 2)
    for seed in (1, 2, 3):
        publish(seed=seed)

    async def test() -> None:
        for number in (1, 2):
            await bench.ask(f"acme/tone@{number}")
        with pytest.raises(Unavailable, match="no more can be reported"):
            await bench.ask("acme/tone@3")
        await bench.look()
        found = bench.registry.there.workers.get("gpu-1").residents
        assert {one.number for one in found} == {1, 2}

    asyncio.run(test())


def test_a_vllm_started_without_enable_lora_refuses_with_the_missing_flag(
    bench: Bench, publish: Publish
) -> None:
    publish()
    bench.models.engine_client = EngineClient({})

    async def test() -> None:
        with pytest.raises(CheckFailed, match="started without --enable-lora"):
            await bench.ask("acme/tone@1")

    asyncio.run(test())


def test_the_base_is_that_of_the_start_although_its_folder_is_replaced_before_the_first_request(
    bench: Bench, publish: Publish, base: Path, tmp_path: Path
) -> None:
    publish()
    workers = bench.registry.there.workers

    async def test() -> None:
        await bench.look()
        while not workers.get("gpu-1").base_name:
            await bench.look()
        shutil.rmtree(base)
        tiny_base(base, seed=7)
        assert await bench.ask("acme/tone@1")
        await bench.look()
        assert workers.get("gpu-1").base_name == "org/tiny"

    asyncio.run(test())


def test_a_base_that_cannot_be_identified_is_logged_at_the_start_and_found_once_it_is_there(
    bench: Bench, publish: Publish, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish(1)
    publish(2)
    away = base.rename(base.with_name("away"))

    async def test() -> None:
        while not messages(caplog, "cannot be identified"):
            await bench.look()
        with pytest.raises(CheckFailed, match="cannot be identified"):
            await bench.ask("acme/tone@1")
        away.rename(base)
        assert await bench.ask("acme/tone@2")

    asyncio.run(test())


def test_a_plugin_whose_worker_cannot_start_answers_the_probe(bench: Bench, base: Path, cache: Cache) -> None:
    other = Bench(bench.registry, base, cache)

    async def test() -> None:
        await bench.look()
        with pytest.raises(Conflict, match=f"{PLUGIN_ANSWER}unnamed"):
            await other.ask(PLUGIN_PROBE)

    asyncio.run(test())


def messages(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    return [one.getMessage() for one in caplog.records if part in one.getMessage()]


def test_known_names_are_served_although_the_registry_refuses_the_workers_token(
    bench: Bench, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    """A new name is refused, and the error names the token's owner."""
    version = publish()

    async def test() -> None:
        assert await bench.ask("acme/tone@1")
        again = bench.restarted()
        again.registry.is_revoked = True
        assert version.digest.hex in (await again.ask("acme/tone@1") or "")
        for _ in range(2):
            with pytest.raises(
                Unauthenticated, match=r"^the registry refuses this engine's ADAPTRY_TOKEN: that"
            ):
                await again.ask("acme/other@1")
            await again.look()
        again.registry.is_revoked = False
        await again.look()

    asyncio.run(test())
    assert len(messages(caplog, "the registry does not answer")) == 1
    assert "for at most 24 h: the registry refuses" in messages(caplog, "the registry does not answer")[0]
    assert len(messages(caplog, "the registry answers again")) == 1


def test_a_refused_name_is_logged_once_with_a_command_for_its_version(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A name to preload is tried repeatedly."""
    push(bench.registry.there, open_dir(tiny_lora(tmp_path / "wide", rank=32)), "acme/tone")
    loading = bench.restarted(preload=("acme/tone@1",), refused_for=0.0)

    async def test() -> None:
        for _ in range(3):
            await loading.look()

    asyncio.run(test())
    (refused,) = messages(caplog, "acme/tone@1 is not served")
    assert "→ change it to a rank that the server supports: adaptry resize acme/tone@1 " in refused


def test_a_bare_name_whose_only_version_was_withdrawn_is_refused_with_the_reason(
    bench: Bench, publish: Publish
) -> None:
    publish()
    withdrawn = StateChange(state="quarantined", reason="it leaks")
    change_state(bench.registry.there, Ref.parse("acme/tone@1"), withdrawn)

    async def test() -> None:
        for _ in range(2):
            with pytest.raises(RevisionNotFound, match=r"acme/tone@1 is quarantined: it leaks.*by "):
                await bench.ask("acme/tone")

    asyncio.run(test())


def test_the_log_has_the_registrys_reason_for_a_name_that_it_does_not_have(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """vLLM itself answers only that there is no such model."""
    caplog.set_level("INFO", "vllm.adaptry")

    async def test() -> None:
        assert await bench.ask("acme/nothing") is None

    asyncio.run(test())
    assert "acme/nothing is not served: no adapter acme/nothing" in caplog.text


def test_a_base_folder_that_changed_after_the_start_of_vllm_identifies_no_base(
    bench: Bench, base: Path, publish: Publish
) -> None:
    """vLLM may have read the previous files."""
    point(bench, "acme/tone", publish())
    bench = bench.restarted(started_at=base.stat().st_ctime - 3600)

    async def test() -> None:
        with pytest.raises(CheckFailed, match=r"changed after the engine started.*restart it.*ADAPTRY_BASE"):
            await bench.ask(PROD)
        assert bench.held == set()

    asyncio.run(test())
