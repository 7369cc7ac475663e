"""A server, a registered base, versions for it, an engine, and a worker that makes the engine follow the
server.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks.runtimes import parse_runtime
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.engine_probe import EngineInfo, probe_engine
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engine_profile import inspect_engine
from adaptry.integrations.serving.engines import ENGINES, Engine, EngineClient, OperatorCommands
from adaptry.integrations.serving.follow.reconciler import Reconciler, ReconcilerDeps
from adaptry.integrations.serving.follow.settings import FollowSettings
from adaptry.integrations.serving.proxy.server import ReverseProxy
from adaptry.integrations.serving.worker.state_file import StateFile
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.testing.flaky_registry import NO_WAIT
from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server
from adaptry_cli.follow_servers import open_proxy

from .fakes import FAKES, FIXED, PUBLISHED, WEIGHTS, FakeEngine

TONE = AdapterName.parse("acme/tone")
PROD = "acme/tone@prod"


_RESTART = """
import json, os, sys, urllib.request
body = json.dumps({"listed": os.environ["ADAPTRY_ADAPTERS"]}).encode()
urllib.request.urlopen(sys.argv[1] + "/_restart", body)
"""
_PREPARE = """
import shutil, sys
shutil.copyfile(sys.argv[1] + "/adapter_model.safetensors", sys.argv[2])
"""


class Scene:
    """Everything that a test of following needs; the processes that it starts are stopped at the end."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.server: Server = stack.enter_context(running_server(ServerSettings(data=folder / "data")))
        self.registry: HttpRegistry = self.server.registry()
        base = open_checkpoint(tiny_base(folder / "base"))
        base_registry.register_base(
            self.registry, base, ("org/tiny",), visibility="internal", cache=folder / "bases"
        )
        self.weights: dict[str, VersionInfo] = {}
        """Versions by the SHA-256 of their weights: what an engine's answer says."""
        self.prepare: tuple[str, ...] = (sys.executable, "-c", _PREPARE, "{folder}", "{file}")
        self.story: list[str] = []
        self.memories: dict[str, StateFile] = {}
        self.proxies: dict[str, ReverseProxy] = {}
        self.caches: dict[str, Cache] = {}

    def engine(self, kind: str = "vllm", **options: Any) -> FakeEngine:
        made = {**FAKES, **FIXED, **PUBLISHED}[kind](**options)
        self._stack.callback(made.stop)
        return made

    def publish(self, seed: int = 1, name: AdapterName = TONE, **options: Any) -> VersionInfo:
        folder = tiny_lora(self.folder / f"lora-{name.name}-{seed}", seed=seed, **options)
        version = push(self.registry, open_dir(folder), name).version
        self.weights[hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()] = version
        return version

    def alias(self, version: VersionInfo, alias: str = "prod") -> None:
        held = {one.alias: one.generation for one in self.registry.aliases.list(version.name)}
        self.registry.aliases.move(version.name, alias, version.digest, held.get(alias))

    def stand(self, version: VersionInfo, state: str = "revoked") -> None:
        ref = Ref.of_revision(version.name, version.digest)
        change_state(self.registry, ref, StateChange.model_validate({"state": state, "reason": "for a test"}))

    def worker(
        self,
        engine: FakeEngine,
        name: str = "gpu-1",
        *,
        watch: tuple[str, ...] = ("acme/*@prod",),
        token: str | None = None,
        restarts: bool = True,
        cache_size: int | None = None,
        has_proxy: bool = False,
        cache_of: str | None = None,
        base: str | None = "org/tiny",
        registry_url: str | None = None,
        timeout: float = 120.0,
        **options: Any,
    ) -> Reconciler:
        """A worker in the state after the start of its process: it knows only what is in its files. Its
        proxy, if any, is `proxies[name]`.
        """
        registry = HttpRegistry(registry_url or self.server.url, token or self.token(name))
        home = self.folder / "workers" / name
        state_file = StateFile(home / "state.json")
        spoken_to = self.spoken_to(engine, state_file, home / "files.list", restarts, timeout)
        if has_proxy:
            proxy = open_proxy(spoken_to, state_file.state.names, "127.0.0.1:0", None)
            self.proxies[name] = self._stack.enter_context(proxy)
            spoken_to = proxy.engine
        deps = ReconcilerDeps(
            registry=registry,
            engine=spoken_to,
            cache=Cache(self.folder / "workers" / (cache_of or name) / "cache", cache_size, NO_WAIT),
            state_file=state_file,
            probe=lambda: (
                EngineInfo(parse_runtime(spoken_to.name), ())
                if engine.kind in ("lorax", "dynamo")  # these do not report their kind
                else probe_engine(engine.url)
            ),
            inspect=lambda found: inspect_engine(registry, found, None, base),
            log=self.story.append,
        )
        self._stack.callback(deps.cache.close)
        self.memories[name], self.caches[name] = state_file, deps.cache
        return Reconciler(deps, FollowSettings(name=name, engine=engine.kind, watch=watch, **options))

    def token(self, name: str) -> str:
        return self.server.token(name, "worker", ("acme",))

    def spoken_to(
        self,
        engine: FakeEngine,
        state_file: StateFile,
        listed: Path,
        restarts: bool = True,
        timeout: float = 120.0,
    ) -> Engine:
        """The engine for a worker; the commands of an operator (restart, prepare) call the fake directly."""
        restart = (sys.executable, "-c", _RESTART, engine.url)
        outside = OperatorCommands(listed, restart if restarts else (), self.prepare)
        client = EngineClient(engine.url, timeout=timeout)
        return ENGINES[engine.kind](client, outside, state_file.state.names)

    def serves(self, engine: FakeEngine, name: str = PROD, worker: str = "gpu-1") -> int | None:
        """The number of the version with which a request is answered; None if it is refused."""
        state_file = self.memories.get(worker) or StateFile(self.folder / "none.json")
        reply = self.spoken_to(engine, state_file, self.folder / "none.list").send_test_request(name)
        if not reply.is_ok:
            return None
        return self.weights[engine.answers[-1][2]].number


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(tmp_path, stack)


@pytest.fixture(params=FAKES)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of engine in turn."""
    return str(request.param)


def settle(reconciler: Reconciler, turns: int = 20) -> None:
    """Runs passes until nothing is left to do."""
    for _ in range(turns):
        if reconciler.reconcile(wait=0.0):
            return
    raise AssertionError(f"not settled after {turns} turns")
