"""`adaptry follow`: a worker that keeps an engine's adapters equal to the aliases' versions."""

from __future__ import annotations

import re
import signal
import socket
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adaptry.core.errors import Invalid
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import (
    FOLDER,
    INPUT,
    declared_runtime_option,
    engine_key_option,
    served_base_option,
)
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option, settings_for
from adaptry_cli.follow_servers import describe_gap, open_monitor, open_proxy
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import print_err

if TYPE_CHECKING:
    from adaptry.checks.runtimes import Runtime
    from adaptry.integrations.engine_probe import EngineInfo
    from adaptry.integrations.serving.engines import Engine, EngineClient
    from adaptry.integrations.serving.follow.reconciler import Reconciler
    from adaptry.integrations.serving.worker.state_file import StateFile

_ENGINES = ("vllm", "sglang", "lorax", "mistralrs", "llamacpp", "dynamo")


@command()
@click.option("--engine", "kind", type=click.Choice(_ENGINES), required=True, help="Engine to manage.")
@click.option("--url", required=True, metavar="URL", help="Base URL of the engine.")
@click.option(
    "--watch",
    multiple=True,
    required=True,
    metavar="REFS",
    help="Aliases to serve, each under its name: acme/tone@prod, or 'acme/*@prod'; may be repeated.",
)
@click.option(
    "--preload",
    multiple=True,
    metavar="REF",
    type=INPUT,
    help="Refs to load before all others; may be repeated.",
)
@click.option(
    "--pin", multiple=True, metavar="REF", type=INPUT, help="Refs that always stay loaded; may be repeated."
)
@click.option(
    "--slots",
    type=WholeNumber(1),
    help="Maximum number of adapters loaded at once, up to 4000 (the default).",
)
@click.option("--name", metavar="WORKER", help="Name of this worker; default: machine and port.")
@served_base_option
@declared_runtime_option("Limits that the engine does not report")
@click.option(
    "--restart",
    metavar="COMMAND",
    help=(
        "Command that restarts the engine, for engines that change adapters only at start (LoRAX, llama.cpp)."
    ),
)
@click.option(
    "--prepare",
    metavar="COMMAND",
    help="Command that makes the GGUF {file} of the adapter in {folder}, for llama.cpp.",
)
@click.option(
    "--lease",
    type=WholeNumber(5, 3600),
    metavar="SECONDS",
    default=60,
    show_default=True,
    help="How long a report is valid, from 5 to 3600 seconds.",
)
@click.option(
    "--cache",
    "folder",
    metavar="DIR",
    type=FOLDER,
    help="The cache folder. Default: ADAPTRY_CACHE, then one in the user's data folder.",
)
@click.option(
    "--proxy",
    metavar="HOST:PORT",
    help="Also serve the engine's API at this address; requests to it do not fail while an alias moves (not"
    " for LoRAX).",
)
@click.option(
    "--proxy-connections",
    "connections",
    type=WholeNumber(1, 65536),
    default=512,
    show_default=True,
    help="Maximum number of client connections to --proxy; further ones get 503.",
)
@click.option("--listen", metavar="HOST:PORT", help="Serve /healthz, /readyz and /metrics (Prometheus) here.")
@engine_key_option
@click.option(
    "--once",
    is_flag=True,
    help="Exit once the engine has the right adapters, or with an error if it cannot get them.",
)
@registry_option
def follow(
    registry: Registry,
    kind: str,
    url: str,
    watch: tuple[str, ...],
    preload: tuple[str, ...],
    pin: tuple[str, ...],
    slots: int | None,
    name: str | None,
    base: str | None,
    declared: Runtime | None,
    restart: str | None,
    prepare: str | None,
    lease: int,
    folder: Path | None,
    proxy: str | None,
    connections: int,
    listen: str | None,
    key: str | None,
    once: bool,
) -> None:
    """Keep an engine's adapters in step with the registry.

    Loads the versions that the aliases point at, and replaces them when aliases move. Unloads recalled
    versions and proves that the engine has dropped them, takes part in rollouts, and reports what is loaded
    (`adaptry workers`). Runs until it is stopped; the engine then keeps its adapters. Its token needs the
    role `worker`.
    """
    from adaptry.integrations.serving.cache.cache import Cache
    from adaptry.integrations.serving.engine_profile import inspect_engine
    from adaptry.integrations.serving.engines import EngineClient
    from adaptry.integrations.serving.follow.engine_claim import claim_engine
    from adaptry.integrations.serving.follow.reconciler import Reconciler, ReconcilerDeps
    from adaptry.integrations.serving.follow.settings import FollowSettings
    from adaptry.integrations.serving.settings import open_worker_cache
    from adaptry.integrations.serving.worker.name_claim import claim_name
    from adaptry.integrations.serving.worker.state_file import StateFile

    _refuse_contradictions(proxy, once, pin, slots)
    settings = settings_for(None)
    cache: Cache = open_worker_cache(settings, folder)
    name = name or _name(url)
    plain_name = _plain(name)
    with ExitStack() as stack:
        stack.enter_context(closing(cache))
        stack.enter_context(claim_name(cache.root, kind, plain_name).lock)
        state_file = StateFile(cache.root / f"follow-{plain_name}.json")
        engine = _open_engine(kind, EngineClient(url, key, settings.ca_bundle), state_file, restart, prepare)
        stack.enter_context(claim_engine(cache.root, engine.address))
        if engine.gap and not proxy:
            print_err(describe_gap(engine))
        if proxy:
            names = state_file.state.names
            front = open_proxy(engine, names, proxy, settings.ca_bundle, connections)
            engine = stack.enter_context(front).engine
        deps = ReconcilerDeps(
            registry=registry,
            engine=engine,
            cache=cache,
            state_file=state_file,
            probe=lambda: _inspect_engine(engine, key, declared, settings.ca_bundle),
            inspect=lambda found: inspect_engine(registry, found, declared, base),
            log=print_err,
        )
        follow_settings = FollowSettings(
            name=name, engine=kind, watch=watch, preload=preload, pin=pin, slots=slots, lease=lease, url=url
        )
        reconciler = Reconciler(deps, follow_settings)
        if listen:
            stack.enter_context(open_monitor(listen, lambda: reconciler.residency))
        _run(reconciler, once)


def _refuse_contradictions(proxy: str | None, once: bool, pin: tuple[str, ...], slots: int | None) -> None:
    """Raises `Invalid` for options that exclude each other."""
    if proxy and once:
        raise Invalid("--proxy runs as long as the worker does; leave out --once")
    if slots is not None and len(set(pin)) > slots:
        raise Invalid(f"{len(set(pin))} refs are pinned, but --slots is {slots}")


def _open_engine(
    kind: str, client: EngineClient, state_file: StateFile, restart: str | None, prepare: str | None
) -> Engine:
    """The engine, with the operator's commands; the list of adapters for them is beside the state file."""
    from adaptry.integrations.serving.engines import ENGINES, OperatorCommands
    from adaptry.integrations.serving.engines.hooks import parse_command

    listed = state_file.path.with_name(f"{state_file.path.stem}.list")
    commands = OperatorCommands(listed, parse_command(restart), parse_command(prepare))
    return ENGINES[kind](client, commands, state_file.state.names)


def _run(reconciler: Reconciler, once: bool) -> None:
    """Reconciles until a signal stops it."""
    from adaptry.integrations.serving.follow.loop import converge, run_forever

    stop = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    signals = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        if once:
            converge(reconciler, stop)
        else:
            run_forever(reconciler, stop)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
    print_err("stopped; the engine keeps its adapters")


def _inspect_engine(
    engine: Engine, key: str | None, declared: Runtime | None, ca_bundle: str | None
) -> EngineInfo:
    """The running engine; if it reports nothing, the declared one. Raises `Invalid` on a mismatch."""
    from adaptry.checks.runtimes import parse_runtime
    from adaptry.core.errors import NotFound
    from adaptry.integrations.engine_probe import EngineInfo, probe_engine
    from adaptry.integrations.serving.engines.vllm_plugin import require_no_plugin

    url = engine.client.url
    try:
        found = probe_engine(url, ca_bundle, key)
    except NotFound:
        return EngineInfo(declared or parse_runtime(engine.name), ())
    if found.runtime.engine != engine.name:
        raise Invalid(f"{url} is {found.runtime}, not {engine.name}; pass the right --engine")
    if engine.name == "vllm":
        require_no_plugin(engine.client)
    return found


def _name(url: str) -> str:
    match = re.search(r":(\d+)", url.rpartition("//")[2])
    return f"{_plain(socket.gethostname())[:80]}-{match[1] if match else 'engine'}"


def _plain(text: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", text).strip("-._")
    if not plain:
        raise Invalid(f"not a worker name: {text[:80]!r} (--name: letters, digits, '.', '_' and '-')")
    return plain
