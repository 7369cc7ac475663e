"""`adaptry push`: store an adapter's files as a new version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adaptry.core.refs import AdapterName, is_folder, parse_alias
from adaptry.operations import transfer as verbs
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import (
    NAME,
    base_source,
    parse_metrics,
    require_usage,
    required_folder,
    validate_options,
)
from adaptry_cli.command import command
from adaptry_cli.connection import pushing_registry_option
from adaptry_cli.output import json_option, print_answer, print_err, progress

if TYPE_CHECKING:  # at run time, imported after the inspection of the weights has begun
    from adaptry.registry.records import PushOptions, PushResult


@command()
@click.argument("source", metavar="DIR|hf:ORG/NAME")
@click.argument("name", type=NAME)
@click.option(
    "--base",
    metavar="NAME|DIR|ID",
    help="The base model it was trained on. Default: the one that its config names.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME=VALUE",
    help="A metric of the version; may be repeated.",
)
@click.option("--alias", metavar="ALIAS", help="An alias to point at the version.")
@click.option("--description", help="A description of the adapter.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag of the adapter; may be repeated.")
@click.option("--force", is_flag=True, help="Push even if the checks block it; needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why the checks may be ignored; stored with the version.")
@pushing_registry_option
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
    """Store an adapter's files as a new version.

    DIR is a folder that PEFT's save_pretrained wrote, such as ./out. hf:ORG/NAME, or hf:ORG/NAME@REVISION, is
    an adapter on a hub. Prints the version and its digest. Pushing identical files returns the existing
    version. Files that do not belong to an adapter (optimizer state, pickles) are left out and listed.
    Results files (trainer_state.json, lm-eval's results_*.json) become evidence of the version.
    """
    from adaptry.registry.records import AdapterEdit, PushOptions

    require_usage(
        force == (reason is not None), "--force and --reason TEXT go together: the reason is stored"
    )
    options = validate_options(
        PushOptions,
        metrics=parse_metrics(metrics),
        force_reason=reason,
        alias=parse_alias(alias) if alias else None,
    )
    edit = validate_options(AdapterEdit, description=description, tags=tags or None)
    push_source = _push_from_hub if _is_on_hub(source) else _push_folder
    pushed = push_source(registry, source, name, base, options)
    if description is not None or tags:
        registry.adapters.edit(name, edit)
    print_pushed(pushed, as_json)


def _is_on_hub(source: str) -> bool:
    if is_folder(source):
        return False
    from adaptry.operations.hf_import.hub_names import is_hub_ref

    return is_hub_ref(source)


def _push_folder(
    registry: Registry, source: str, name: AdapterName, base: str | None, options: PushOptions
) -> PushResult:
    from adaptry.adapters.adapter import open_dir
    from adaptry.operations.base_recognition import recognise_base
    from adaptry.operations.result_files import find_result_files

    folder = required_folder(source)
    adapter = open_dir(folder)
    results = find_result_files(folder)
    as_evidence = {path.relative_to(folder).parts[0] for path in results}
    for left, why in adapter.left_out.items():
        if left not in as_evidence:
            print_err(f"left out {left}: {why}")
    source_of_base = base_source(base) if base else None
    is_forced = options.force_reason is not None
    found = recognise_base(registry.bases, adapter, source_of_base, is_forced=is_forced)
    if sentence := found.sentence(name.namespace):
        print_err(sentence)
    with progress() as bars:
        pushed = verbs.push(registry, adapter, name, base=found, options=options, progress=bars)
    if results:
        from adaptry.operations.evidence.folder_evidence import add_folder_evidence

        with progress() as bars:
            taken = add_folder_evidence(registry, results, pushed.version, bars)
        for sentence in taken.sentences(pushed.version):
            print_err(sentence)
    return pushed


def _push_from_hub(
    registry: Registry, source: str, name: AdapterName, base: str | None, options: PushOptions
) -> PushResult:
    from adaptry.operations.base_recognition import BaseRecogniser
    from adaptry.operations.hf_import.adapters import push_from_hub
    from adaptry.operations.hf_import.hub_client import open_hub
    from adaptry.operations.hf_import.hub_names import HubRef

    ref, hub = HubRef.parse(source), open_hub()
    named = BaseRecogniser(registry.bases).named(base_source(base)) if base else None
    with progress() as bars:
        taken = push_from_hub(registry, hub, ref, name, base=named, options=options, progress=bars)
    print_err(f"from {taken.revision} at {hub.endpoint}")
    if taken.left_out:
        print_err(f"left out {', '.join(taken.left_out)}")
    return taken.pushed


def print_pushed(pushed: PushResult, as_json: bool) -> None:
    """Prints the version and its digest; findings go to stderr."""
    version = pushed.version
    if not pushed.is_new:
        print_err(f"{version.label} already has these files; no new version was created")
    if version.state != "active":
        from adaptry.registry.state_warnings import state_warning  # few pushes return a withdrawn version

        print_err(f"warning: {state_warning(version)}")
    for finding in pushed.report.findings:
        if finding.severity != "notes":
            remedy = finding.remedy_for(version.label)
            print_err(f"{finding.severity}: {finding.reason} [{finding.code}] → {remedy}")
    print_answer(pushed, f"{version.label} {version.digest}", as_json)
