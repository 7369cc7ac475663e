"""Versions that end vLLM's engine, and the process of the plugin with it, while they are loaded or answer
their first request: how the next process treats them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adaptry.core.errors import Unavailable
from adaptry.core.refs import AdapterName
from adaptry.integrations.serving.vllm.engine import InProcessVllm
from adaptry.integrations.serving.worker.load_journal import CrashPause
from adaptry.registry.records import VersionInfo
from adaptry.registry.rollouts import RolloutPlan

from .bench import Bench
from .recorded_vllm import EngineClient, LoRARequest

Publish = Callable[..., VersionInfo]
TONE = AdapterName.parse("acme/tone")


class MortalEngine(EngineClient):
    """An engine that ends when it loads an adapter whose path contains a word of `ends_at`."""

    ends_at: tuple[str, ...] = ()

    async def add_lora(self, request: LoRARequest) -> bool:
        if any(word in request.lora_path for word in self.ends_at):
            self.errored = True
            raise RuntimeError("EngineCore encountered an issue.")
        return await super().add_lora(request)


def mortal(bench: Bench, *versions: VersionInfo) -> Bench:
    """The bench, with an engine that these versions cause to end."""
    engine = MortalEngine(bench.models.engine_client.limits)
    engine.ends_at = tuple(version.digest.hex for version in versions)
    bench.models.engine_client = engine
    return bench


async def end_at_load(bench: Bench, name: str) -> None:
    """A request for the name, and the last refresh of a process whose engine has ended."""
    with pytest.raises(RuntimeError):
        await bench.ask(name)
    await bench.look()


def journal(bench: Bench) -> Path:
    assert bench.served.worker is not None
    return bench.served.worker.journal.path


def let_pauses_pass(bench: Bench) -> None:
    path = journal(bench)
    state = json.loads(path.read_text())
    for one in state["interrupted"].values():
        one["retry_at"] = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    path.write_text(json.dumps(state))


def test_a_version_that_ended_the_engine_twice_waits_and_others_are_served(
    bench: Bench, publish: Publish
) -> None:
    poison, facts = publish(), publish(seed=2, name="acme/facts")

    async def test() -> None:
        now = mortal(bench, poison)
        for _ in range(2):
            await end_at_load(now, "acme/tone@1")
            now = mortal(now.restarted(), poison)
        with pytest.raises(CrashPause, match=r"ended 2 times while it loaded acme/tone@1.*next attempt"):
            await now.ask("acme/tone@1")
        with pytest.raises(CrashPause):  # its pause applies to every name of the version
            await now.ask("acme/tone")
        assert facts.digest.hex in str(await now.ask("acme/facts"))
        await now.look()
        problems = {one.served_as for one in now.registry.there.workers.get("gpu-1").problems}
        assert problems == {"acme/tone@1", "acme/tone"}
        let_pauses_pass(now)
        assert await mortal(now.restarted()).ask("acme/tone@1")

    asyncio.run(test())


def test_a_version_that_ends_the_engine_at_its_first_request_waits_too(
    bench: Bench, publish: Publish
) -> None:
    publish()

    async def test() -> None:
        now = mortal(bench)
        for _ in range(2):
            await now.ask("acme/tone@1")
            await now.look()  # it is loaded, and idle
            now.models.begin("acme/tone@1")
            now.models.engine_client.errored = True
            await now.look()
            now = mortal(now.restarted())
        with pytest.raises(CrashPause):
            await now.ask("acme/tone@1")

    asyncio.run(test())


def test_versions_that_answered_or_were_idle_when_the_engine_ended_are_loaded_again_at_once(
    bench: Bench, publish: Publish
) -> None:
    publish(), publish(seed=2, name="acme/facts")

    async def test() -> None:
        now = mortal(bench)
        for _ in range(3):
            await now.ask("acme/facts")
            await now.ask("acme/tone@1")
            now.models.begin("acme/tone@1")()
            await now.look()
            now.models.begin("acme/tone@1")
            now.models.engine_client.errored = True
            await now.look()
            now = mortal(now.restarted())

    asyncio.run(test())


def test_a_restart_during_a_load_delays_nothing_and_is_forgotten_when_the_version_has_answered(
    bench: Bench, publish: Publish
) -> None:
    version = publish()

    async def test() -> None:
        now = mortal(bench, version)
        await end_at_load(now, "acme/tone@1")
        now = mortal(now.restarted())
        await now.ask("acme/tone@1")
        now.models.begin("acme/tone@1")()
        await now.look()
        now = mortal(now.restarted(), version)
        await end_at_load(now, "acme/tone@1")
        assert await mortal(now.restarted()).ask("acme/tone@1")

    asyncio.run(test())


def test_two_versions_that_may_have_ended_the_engine_are_tried_one_at_a_time(
    bench: Bench, publish: Publish
) -> None:
    poison, _ = publish(), publish(seed=2, name="acme/facts")

    async def test() -> None:
        now = mortal(bench, poison)
        for _ in range(2):
            await now.ask("acme/facts")
            now.models.begin("acme/facts")  # not answered when the engine ends
            await end_at_load(now, "acme/tone@1")
            now = mortal(now.restarted(), poison)
        now.served.start(InProcessVllm(now.models))
        let_pauses_pass(now)
        now = mortal(now.restarted(refused_for=0.0), poison)
        await now.ask("acme/facts")
        end = now.models.begin("acme/facts")
        with pytest.raises(Unavailable, match="being tried first"):
            await now.ask("acme/tone@1")
        end()
        await now.look()
        await end_at_load(now, "acme/tone@1")
        assert await mortal(now.restarted(), poison).ask("acme/facts")

    asyncio.run(test())


def test_the_names_to_preload_that_may_have_ended_the_engine_are_loaded_last(
    bench: Bench, publish: Publish
) -> None:
    poison, facts = publish(), publish(seed=2, name="acme/facts")
    preload = ("acme/tone", "acme/facts")

    async def test() -> None:
        now = mortal(bench, poison)
        await end_at_load(now, "acme/tone")
        now = mortal(now.restarted(preload=preload))
        await now.look()
        held = [Path(path).parent.name for path in now.models.engine_client.held.values()]
        assert held == [facts.digest.hex, poison.digest.hex]

    asyncio.run(test())


def test_a_name_keeps_its_version_while_the_newer_one_waits_and_a_rollout_of_it_stops(
    bench: Bench, publish: Publish
) -> None:
    first, poison = publish(), publish(seed=2)
    registry = bench.registry.there
    registry.aliases.move(TONE, "prod", first.digest, None)

    async def test() -> None:
        now = mortal(bench, poison)
        for _ in range(2):
            await end_at_load(now, "acme/tone@2")
            now = mortal(now.restarted(), poison)
        await now.ask("acme/tone@prod")
        await now.look()
        registry.aliases.move(TONE, "prod", poison.digest, 1)
        await now.look()
        assert first.digest.hex in str(await now.ask("acme/tone@prod"))
        registry.aliases.move(TONE, "prod", first.digest, 2)
        await now.look()
        registry.rollouts.start(TONE, "prod", poison.digest, RolloutPlan(steps=(50, 100)))
        async with asyncio.timeout(60):
            while registry.rollouts.list(TONE)[0].stage == "running":
                await now.look()
        assert registry.rollouts.list(TONE)[0].stage == "stopped"
        assert first.digest.hex in str(await now.ask("acme/tone@prod"))

    asyncio.run(test())
