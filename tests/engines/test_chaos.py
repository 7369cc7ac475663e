"""Aliases move and versions are recalled while engines, workers and the registry are killed: all converge,
and no worker serves a version after it has reported it as dropped.

The quick run has 80 moves and 4 workers; the complete one has 1,000 moves and 8 workers (heavy). The registry
is a process that is killed; engines lose their state; workers are killed before or after any request to their
engine.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.errors import Conflict, Unavailable
from adaptry.core.refs import AdapterName, Number, Ref
from adaptry.integrations.engine_probe import probe_engine
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engine_profile import inspect_engine
from adaptry.integrations.serving.engines import ENGINES, EngineClient, EngineResponse, OperatorCommands
from adaptry.integrations.serving.follow.reconciler import Reconciler, ReconcilerDeps
from adaptry.integrations.serving.follow.settings import FollowSettings
from adaptry.integrations.serving.worker.state_file import StateFile
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.storage import tokens
from adaptry.storage.connect import open_local
from adaptry.testing.flaky_registry import NO_WAIT
from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry.testing.warm_python import WarmPython

from .fakes import FAKES, WEIGHTS, FakeEngine

TONE = AdapterName.parse("acme/tone")
ALIASES = ("prod", "staging")
VERSIONS = 12
SPARED = 3  # versions that are recalled last or never: aliases need a target
TIMEOUT = 120.0


class Died(BaseException):
    """The end of a worker, which no code in the worker can catch."""


class Mortal(EngineClient):
    """Sends requests to an engine until its worker dies, just before or just after the next request."""

    def __init__(self, url: str, chance: random.Random) -> None:
        super().__init__(url)
        self.is_doomed = False
        self._chance = chance

    def _request(self, method: str, path: str, body: bytes | None, timeout: float) -> EngineResponse:
        if self.is_doomed and self._chance.random() < 0.5:
            raise Died
        reply = super()._request(method, path, body, timeout)
        if self.is_doomed:
            raise Died
        return reply


class RegistryProcess:
    """`adaptry serve`, which can be restarted at the same address."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._port = 0
        self.start()

    def start(self) -> None:
        """Starts it; for a moment, the previous process may still have the port."""
        for _ in range(5):
            command = [sys.executable, "-m", "adaptry_cli", "serve", "--data", str(self._data)]
            self._process = WarmPython(
                [*command, "--port", str(self._port)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert self._process.stdout is not None
            if url := self._process.stdout.readline().strip():
                self.url, self._port = url, int(url.rpartition(":")[2])
                return
            self._process.communicate()
        raise AssertionError("the registry does not start")

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Worker(threading.Thread):
    """A worker that follows; when it dies, another process replaces it, with only its files."""

    def __init__(self, name: str, engine: FakeEngine, url: str, token: str, folder: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.name, self.engine = name, engine
        self._url, self._token, self._folder = url, token, folder
        self._chance = random.Random(seed)
        self._speaking: Mortal | None = None
        self._stop_asked = threading.Event()
        self.deaths = 0
        self.failure: Exception | None = None

    def die(self) -> None:
        if self._speaking:
            self._speaking.is_doomed = True

    def stop(self) -> None:
        self._stop_asked.set()
        self.join(60)

    def run(self) -> None:
        while not self._stop_asked.is_set():
            cache = Cache(self._folder / "cache", retry=NO_WAIT)
            try:
                self._live(cache)
            except Died:
                self.deaths += 1
            except Unavailable:  # the registry was down when it was asked for the engine's base
                continue
            except Exception as error:  # noqa: BLE001  every error fails the test
                self.failure = error
                return
            finally:
                cache.close()  # as the system does when a process ends

    def _live(self, cache: Cache) -> None:
        self._speaking = Mortal(self.engine.url, self._chance)
        registry = HttpRegistry(self._url, self._token)
        deps = ReconcilerDeps(
            registry=registry,
            engine=ENGINES[self.engine.kind](self._speaking, OperatorCommands(Path()), {}),
            cache=cache,
            state_file=StateFile(self._folder / "state.json"),
            probe=lambda: probe_engine(self.engine.url),
            inspect=lambda found: inspect_engine(registry, found),
            log=lambda line: None,
        )
        watch = tuple(f"acme/*@{alias}" for alias in ALIASES)
        reconciler = Reconciler(
            deps, FollowSettings(name=self.name, engine=self.engine.kind, watch=watch, slots=4)
        )
        while not self._stop_asked.is_set():
            reconciler.reconcile(0.1)


class Chaos:
    """The registry, its versions, and the fleet; every step is drawn from one seed."""

    def __init__(self, folder: Path, workers: int, seed: int, stack: ExitStack) -> None:
        self.chance = random.Random(seed)
        local = open_local(folder / "data")
        base_registry.register_base(
            local,
            open_checkpoint(tiny_base(folder / "base")),
            ("org/tiny",),
            visibility="internal",
            cache=folder / "bases",
        )
        self.weights: dict[str, VersionInfo] = {}
        for number in range(1, VERSIONS + 1):
            lora = tiny_lora(folder / f"lora-{number}", seed=number)
            version = push(local, open_dir(lora), TONE).version
            self.weights[hashlib.sha256((lora / WEIGHTS).read_bytes()).hexdigest()] = version
        for alias in ALIASES:
            local.aliases.move(TONE, alias, local.versions.get(Ref(TONE, Number(1))).digest, None)
        root = tokens.create_token(local.catalog, "root", "admin", ("*",))
        names = [f"gpu-{number}" for number in range(workers)]
        reporting = {name: tokens.create_token(local.catalog, name, "worker", ("acme",)) for name in names}
        local.close()
        self.server = RegistryProcess(folder / "data")
        stack.callback(self.server.kill)
        self.registry = HttpRegistry(self.server.url, root)
        self.fleet: list[Worker] = []
        kinds = list(FAKES)
        for number, name in enumerate(names):
            engine = FAKES[kinds[number % len(kinds)]]()
            stack.callback(engine.stop)
            worker = Worker(name, engine, self.server.url, reporting[name], folder / name, seed + number)
            stack.callback(worker.stop)
            worker.start()
            self.fleet.append(worker)
        self.recalled: set[int] = set()
        self.moves = self.crashes = 0

    def move(self) -> None:
        """Moves one alias to another version that may be used."""
        alias = self.chance.choice(ALIASES)
        usable = [number for number in range(1, VERSIONS + 1) if number not in self.recalled]
        target = self.registry.versions.get(Ref(TONE, Number(self.chance.choice(usable))))
        held = {one.alias: one.generation for one in self.registry.aliases.list(TONE)}
        with suppress(Conflict):
            self.registry.aliases.move(TONE, alias, target.digest, held[alias])
        self.moves += 1

    def recall(self) -> None:
        """Recalls the version at which an alias points, so that its name is removed; or any other."""
        usable = [number for number in range(1, VERSIONS + 1) if number not in self.recalled]
        aliased = [one.number for one in self.registry.aliases.list(TONE) if one.number in usable]
        number = self.chance.choice(aliased or usable)
        change_state(self.registry, Ref(TONE, Number(number)), StateChange(state="revoked", reason="chaos"))
        self.recalled.add(number)

    def crash(self) -> None:
        """Kills an engine, a worker or, sometimes, the registry."""
        self.crashes += 1
        victim = self.chance.choice(self.fleet)
        match self.chance.randrange(8):
            case 0:
                self.server.kill()
                self.server.start()
            case 1 | 2 | 3:
                victim.engine.stop()
                victim.engine.start()
            case _:
                victim.die()

    def ask(self) -> None:
        """Sends a client's request to some engine, whatever the outcome."""
        worker = self.chance.choice(self.fleet)
        with suppress(Unavailable):
            speaking = EngineClient(worker.engine.url)
            ENGINES[worker.engine.kind](speaking, OperatorCommands(Path()), {}).send_test_request(
                f"{TONE}@{self.chance.choice(ALIASES)}"
            )

    def settled(self) -> bool:
        """Whether every engine serves the aliases' versions, and every recall is acknowledged."""
        meant = {
            f"{TONE}@{one.alias}": one.digest.hex
            for one in self.registry.aliases.list(TONE)
            if one.number not in self.recalled
        }
        for worker in self.fleet:
            served = worker.engine.names()
            if served.keys() != meant.keys() or any(meant[name] not in path for name, path in served.items()):
                return False
        return all(
            one.dropped_at is not None
            for number in self.recalled
            for one in self.registry.workers.residents(Ref(TONE, Number(number)))
        )

    def dropped_at(self) -> dict[tuple[str, int], datetime]:
        """The times at which each worker was known to have dropped each version."""
        return {
            (one.worker, number): one.dropped_at
            for number in self.recalled
            for one in self.registry.workers.residents(Ref(TONE, Number(number)))
            if one.dropped_at is not None
        }


@contextmanager
def chaos(folder: Path, workers: int, seed: int) -> Iterator[Chaos]:
    with ExitStack() as stack:
        yield Chaos(folder, workers, seed, stack)


def test_all_workers_converge_and_none_serves_a_dropped_version(tmp_path: Path) -> None:
    survive(tmp_path, workers=4, moves=80, seed=7)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", [1, 2])
def test_all_workers_converge_after_a_thousand_moves(tmp_path: Path, seed: int) -> None:
    survive(tmp_path, workers=8, moves=1000, seed=seed)


def survive(folder: Path, workers: int, moves: int, seed: int) -> None:
    with chaos(folder, workers, seed) as world:
        wait_for(world.settled, world)
        while world.moves < moves:
            world.move()
            world.ask()
            if world.chance.random() < 0.1:
                world.crash()
            if world.chance.random() < 6 / moves and len(world.recalled) < VERSIONS - SPARED:
                world.recall()
        wait_for(world.settled, world)
        world.recall()  # of the versions that the engines have now
        wait_for(world.settled, world)
        for _ in range(20 * workers):
            world.ask()
        dropped = world.dropped_at()
        assert dropped
        assert world.crashes
        assert sum(worker.deaths for worker in world.fleet) > 0
        for worker in world.fleet:
            assert worker.engine.most <= 4
            for at, name, weights in worker.engine.answers:
                if weights == "base":
                    continue
                number = world.weights[weights].number
                when = dropped.get((worker.name, number))
                assert when is None or at <= when.timestamp(), (
                    worker.name,
                    name,
                    number,
                    at - when.timestamp(),
                )


def wait_for(condition: Callable[[], bool], world: Chaos) -> None:
    until = time.monotonic() + TIMEOUT * (1 if os.environ.get("CI") is None else 3)
    while not condition():
        failed = [worker.failure for worker in world.fleet if worker.failure]
        assert not failed, failed
        assert time.monotonic() < until, [worker.engine.names() for worker in world.fleet]
