"""`adaptry probe`: whether a running engine applies an adapter as it was trained."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adaptry.core.errors import Invalid, NotFound
from adaptry.integrations.engine_test.client import EngineTarget, QueryLogprobs
from adaptry.operations.sources import OpenedAdapter, open_input
from adaptry_cli.arguments import BASE, RUNTIME, SOURCE, Source, engine_key_option
from adaptry_cli.command import command
from adaptry_cli.connection import RegistryOpener, lazy_registry_option, settings_for
from adaptry_cli.exit_codes import NO
from adaptry_cli.output import json_option, print_err, print_json, print_out, progress

if TYPE_CHECKING:
    from adaptry.checks.runtimes import Runtime
    from adaptry.integrations.engine_probe import EngineInfo


@command()
@click.argument("source", metavar="REF|DIR", type=SOURCE)
@click.option("--engine", "url", metavar="URL", required=True, help="Base URL of the engine.")
@click.option(
    "--kind",
    "declared",
    type=RUNTIME,
    metavar="ENGINE",
    help="The kind of engine, if it does not report it: vllm, sglang, llama.cpp.",
)
@click.option(
    "--base",
    metavar="NAME|DIR|ID",
    type=BASE,
    help="The base to compare on. Default: the version's own.",
)
@click.option(
    "--model",
    metavar="NAME",
    help="The engine's name for the adapter. Default: the same name as here (llama.cpp: its number).",
)
@click.option(
    "--base-model", metavar="NAME", help="The engine's name for its base. Default: the one that it reports."
)
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="TEXT",
    help="A prompt to use instead of the built-in ones; may be repeated.",
)
@engine_key_option
@lazy_registry_option
@json_option
@click.pass_context
def probe(
    ctx: click.Context,
    connected: RegistryOpener,
    source: Source,
    url: str,
    declared: Runtime | None,
    base: str | None,
    model: str | None,
    base_model: str | None,
    prompts: tuple[str, ...],
    key: str | None,
    as_json: bool,
) -> None:
    """Test whether a running engine applies an adapter as it was trained.

    Sends it fixed prompts with and without the adapter, and compares the probabilities of its answers with
    PEFT's on this machine's CPU. The exit code is 0 for `as trained`; it is 1 for `no-op` (the answers are
    those of the base), for `differs`, and if the result is undecided.
    """
    from adaptry.integrations.engine_test import comparison
    from adaptry.integrations.engine_test.prompts import PROMPTS
    from adaptry.integrations.engine_test.verdict import OUTCOMES

    running = _running(url, declared, base_model, key)
    target = EngineTarget(url, base_model or _base_model(running), model or str(source), key)
    ask = _ask(declared.engine if declared else running.runtime.engine if running else "")
    folder = _base_folder(connected, open_input(connected, source), base)
    print_err(f"{source} at {url}, compared on {folder}")
    with _folder_of(connected, source) as adapter:
        found = comparison.run_engine_test(ask, target, folder, adapter, prompts or PROMPTS)
    if as_json:
        print_json(found)
    else:
        print_out(OUTCOMES[found.outcome])
        print_err(found.sentence)
    ctx.exit(0 if found.outcome == "as_trained" else NO)


def _running(
    url: str, declared: Runtime | None, base_model: str | None, key: str | None
) -> EngineInfo | None:
    """The engine's report about itself; None if the options declare everything."""
    from adaptry.integrations.engine_probe import probe_engine

    return None if declared and base_model else probe_engine(url, settings_for(None).ca_bundle, key)


def _base_model(running: EngineInfo | None) -> str:
    """The engine's name for its base; vLLM reports a folder and a name, and accepts the name in requests."""
    return running.models[-1] if running and running.models else ""


def _ask(kind: str) -> QueryLogprobs:
    """The function that queries this kind of engine. Raises `Invalid` for an engine that is not supported."""
    from adaptry.integrations.engine_test.client import QUERY_BY_ENGINE

    if kind not in QUERY_BY_ENGINE:
        raise Invalid(f"adaptry probe does not support {kind} (supported: {', '.join(QUERY_BY_ENGINE)})")
    return QUERY_BY_ENGINE[kind]


def _base_folder(connected: RegistryOpener, opened: OpenedAdapter, base: str | None) -> Path:
    """The folder of the base for the comparison. Raises `NotFound`."""
    from adaptry.operations import base_registry

    own = opened.version.base_id if opened.version else None
    key = base or (str(own) if own else opened.adapter.config.base_name)
    if key is None:
        raise NotFound(f"{opened.label} names no base; pass the one to compare on: --base NAME|DIR")
    return base_registry.open_base(connected(), key).folder


@contextlib.contextmanager
def _folder_of(connected: RegistryOpener, source: Source) -> Iterator[Path]:
    if isinstance(source, Path):
        yield source
        return
    from adaptry.operations.transfer import pull

    with tempfile.TemporaryDirectory() as folder, progress() as bars:
        pull(connected(), source, Path(folder) / "adapter", progress=bars)
        yield Path(folder) / "adapter"
