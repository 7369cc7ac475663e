"""`adaptry push`: put an adapter into the registry."""

from __future__ import annotations

from pathlib import Path

import click

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName, parse_alias
from adaptry.operations import transfer as verbs
from adaptry.operations.hf_import.hub_names import HubRef, is_hub_ref
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit, PushOptions, PushResult
from adaptry_cli.arguments import NAME, parse_metrics, require_usage, validate_options
from adaptry_cli.base_claim import base_claim, claim_of_config
from adaptry_cli.connection import creating_registry_option
from adaptry_cli.out import json_option, print_answer, print_err, progress


@click.command()
@click.argument("source", metavar="DIR|hf:ORG/NAME")
@click.argument("name", type=NAME)
@click.option(
    "--base", metavar="NAME|DIR|ID", help="The base it was trained on; else the one its config names."
)
@click.option("--metric", "metrics", multiple=True, metavar="NAME=VALUE", help="A metric; may be repeated.")
@click.option("--alias", metavar="ALIAS", help="An alias to set on the version.")
@click.option("--description", help="What the adapter is for.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag of the adapter; may be repeated.")
@click.option("--force", is_flag=True, help="Push although the checks refuse it; needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why it is pushed all the same; kept with the version.")
@creating_registry_option
@json_option
def push(
    registry: Registry,
    source: str,
    name: AdapterName,
    base: str | None,
    metrics: tuple[str, ...],
    alias: str | None,
    description: str | None,
    tags: tuple[str, ...],
    force: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    """Put an adapter into the registry.

    DIR is what PEFT's save_pretrained wrote; hf:ORG/NAME, or hf:ORG/NAME@REVISION, is an adapter on a hub.
    Prints the ref and the digest. Pushing identical files returns the existing version. Files that do not
    belong to an adapter (optimizer state, pickles) are left out and listed.
    """
    require_usage(force == (reason is not None), "--force and --reason TEXT go together: the reason is kept")
    options = validate_options(
        PushOptions,
        metrics=parse_metrics(metrics),
        force_reason=reason,
        alias=parse_alias(alias) if alias else None,
    )
    edit = validate_options(AdapterEdit, description=description, tags=tags or None)
    push_source = _push_from_hub if is_hub_ref(source) else _push_folder
    pushed = push_source(registry, source, name, base, options)
    if description is not None or tags:
        registry.adapters.edit(name, edit)
    print_pushed(pushed, as_json)


def _push_folder(
    registry: Registry, source: str, name: AdapterName, base: str | None, options: PushOptions
) -> PushResult:
    folder = Path(source)
    adapter = open_dir(folder)
    for left, why in adapter.left_out.items():
        print_err(f"left out {left}: {why}")
    claim = base_claim(registry.bases, base) if base else claim_of_config(registry.bases, adapter, folder)
    with progress() as bars:
        return verbs.push(registry, adapter, name, base=claim, options=options, progress=bars)


def _push_from_hub(
    registry: Registry, source: str, name: AdapterName, base: str | None, options: PushOptions
) -> PushResult:
    from adaptry.operations.hf_import.adapters import push_from_hub
    from adaptry.operations.hf_import.hub_client import open_hub

    ref, hub = HubRef.parse(source), open_hub()
    claim = base_claim(registry.bases, base) if base else None
    with progress() as bars:
        taken = push_from_hub(registry, hub, ref, name, base=claim, options=options, progress=bars)
    print_err(f"from {taken.revision} at {hub.endpoint}")
    if taken.left_out:
        print_err(f"left out {', '.join(taken.left_out)}")
    return taken.pushed


def print_pushed(pushed: PushResult, as_json: bool) -> None:
    """Prints the version and its digest; what the checks found goes to stderr."""
    version = pushed.version
    if not pushed.is_new:
        print_err("already present, unchanged")
    for finding in pushed.report.findings:
        if finding.severity != "notes":
            print_err(f"{finding.severity}: {finding.reason} [{finding.code}] → {finding.remedy}")
    print_answer(pushed, f"{version.label} {version.digest}", as_json)
