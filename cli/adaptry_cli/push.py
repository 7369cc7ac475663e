"""`adaptry push`, `pull` and `copy`."""

from __future__ import annotations

from pathlib import Path

import click

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName, Latest, Ref, parse_alias
from adaptry.operations import transfer as verbs
from adaptry.operations.hf_import.hub_names import HubRef, is_hub_ref
from adaptry.registry.interface import Registry
from adaptry.registry.records import AdapterEdit, PushOptions, PushResult
from adaptry_cli.arguments import FOLDER, NAME, REF, parse_metrics, require_usage, validate_options
from adaptry_cli.base_claim import base_claim, claim_of_config
from adaptry_cli.connection import connect_to, creating_registry_option, registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.inputs import explain_empty_adapter
from adaptry_cli.lock import pull_locked
from adaptry_cli.out import json_option, print_answer, print_err, progress
from adaptry_cli.warnings import print_state_warning


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

    DIR is what PEFT's save_pretrained wrote; hf:ORG/NAME, or hf:ORG/NAME@REVISION, is an adapter on a hub. Prints
    the ref and the digest. The same files again give the version they are already; files that are not an adapter's
    (optimizer state, pickles) are left out and named.
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
        registry.edit_adapter(name, edit)
    _say_pushed(pushed, as_json)


@click.command()
@click.argument("ref", type=REF, required=False)
@click.option(
    "--to", "folder", metavar="DIR", type=FOLDER, help="Where to put it; else a folder of its name."
)
@click.option("--force", is_flag=True, help="Replace another adapter that is there.")
@click.option(
    "--even-withdrawn", is_flag=True, help="Also what is quarantined or revoked, if you may have it at all."
)
@click.option(
    "--locked", metavar="FILE", type=FOLDER, help="Pull exactly what a lock file pins, each under DIR."
)
@registry_option
@json_option
def pull(
    registry: Registry,
    ref: Ref | None,
    folder: Path | None,
    force: bool,
    even_withdrawn: bool,
    locked: Path | None,
    as_json: bool,
) -> None:
    """Get an adapter out of the registry.

    The folder then holds the adapter's files and nothing else, each verified, and appears whole or not at all.
    A version that is deprecated or yanked comes with a warning; one that is quarantined or revoked does not come.
    With --locked, every adapter of the lock file goes to DIR/namespace/name@….
    """
    require_usage((ref is None) != (locked is None), "give a REF, or --locked FILE")
    require_usage(locked is None or not even_withdrawn, "--even-withdrawn goes with a REF")
    if locked is not None:
        pull_locked(registry, locked, folder or Path(), force, as_json)
        return
    assert ref is not None
    target = folder or Path(ref.name.name)
    with explain_empty_adapter(registry, ref), progress() as told:
        version = verbs.pull(registry, ref, target, force=force, even_withdrawn=even_withdrawn, progress=told)
    print_state_warning(version)
    print_err(f"{version.name}@{version.number} {version.digest}")
    print_answer({"folder": str(target), "version": version.model_dump(mode="json")}, str(target), as_json)


@click.command()
@click.argument("ref", type=REF)
@click.argument("name", type=NAME, required=False)
@click.option("--to-registry", metavar="URL|DIR", help="The registry to copy into; else the same one.")
@click.option("--alias", metavar="ALIAS", help="An alias to set on the copy.")
@click.option(
    "--all-versions", is_flag=True, help="All versions of the adapter, with numbers, metrics and states."
)
@registry_option
@json_option
def copy(
    registry: Registry,
    ref: Ref,
    name: AdapterName | None,
    to_registry: str | None,
    alias: str | None,
    all_versions: bool,
    as_json: bool,
) -> None:
    """Copy a version to another name or registry.

    The copy has the same manifest, so the same digest. Without NAME it keeps its name. With --all-versions the whole
    adapter goes to another registry; `adaptry mirror` copies what a query finds, and follows it.
    """
    require_usage(name is not None or to_registry is not None, "give a NAME, or --to-registry, or both")
    if all_versions:
        is_whole = isinstance(ref.selector, Latest) and name is None and alias is None
        require_usage(
            is_whole, "--all-versions takes the name of an adapter, and takes no NAME and no --alias"
        )
        _copy_whole(registry, ref.name, to_registry, as_json)
        return
    destination = connect_to(to_registry, create_missing=True) if to_registry else registry
    options = validate_options(PushOptions, alias=parse_alias(alias) if alias else None)
    with explain_empty_adapter(registry, ref), progress() as told:
        print_state_warning(registry.version(ref))
        pushed = verbs.copy(registry, ref, destination, name or ref.name, options=options, progress=told)
    _say_pushed(pushed, as_json)


def _copy_whole(registry: Registry, name: AdapterName, to_registry: str | None, as_json: bool) -> None:
    from adaptry.operations.mirroring.plan import MirrorSelection
    from adaptry.operations.mirroring.sync import sync_once
    from adaptry_cli.mirror import print_sync_result

    with progress() as told:
        followed = sync_once(
            registry,
            connect_to(to_registry, create_missing=True),
            MirrorSelection(names=(name,)),
            progress=told,
        )
    print_sync_result(followed, as_json)
    click.get_current_context().exit(NO if followed.failures else 0)


def _push_folder(
    registry: Registry, source: str, name: AdapterName, base: str | None, options: PushOptions
) -> PushResult:
    folder = Path(source)
    adapter = open_dir(folder)
    for left, why in adapter.left_out.items():
        print_err(f"left out {left}: {why}")
    claim = base_claim(registry, base) if base else claim_of_config(registry, adapter, folder)
    with progress() as told:
        return verbs.push(registry, adapter, name, base=claim, options=options, progress=told)


def _push_from_hub(
    registry: Registry, source: str, name: AdapterName, base: str | None, options: PushOptions
) -> PushResult:
    from adaptry.operations.hf_import.adapters import push_from_hub
    from adaptry.operations.hf_import.hub_client import open_hub

    ref, hub = HubRef.parse(source), open_hub()
    claim = base_claim(registry, base) if base else None
    with progress() as told:
        taken = push_from_hub(registry, hub, ref, name, base=claim, options=options, progress=told)
    print_err(f"from {taken.revision} at {hub.endpoint}")
    if taken.left_out:
        print_err(f"left out {', '.join(taken.left_out)}")
    return taken.pushed


def _say_pushed(pushed: PushResult, as_json: bool) -> None:
    version = pushed.version
    if not pushed.is_new:
        print_err("these very files were there already")
    for finding in pushed.report.findings:
        if finding.severity != "notes":
            print_err(f"{finding.severity}: {finding.reason} [{finding.code}] → {finding.remedy}")
    print_answer(pushed, f"{version.name}@{version.number} {version.digest}", as_json)
