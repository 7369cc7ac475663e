"""`adaptry export`: an adapter repaired for an engine, and written as the files that a tool reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptry.adapters.base_record import BaseRecord
from adaptry.core.errors import Invalid
from adaptry.core.refs import AdapterName
from adaptry_cli.arguments import DTYPE, RUNTIME, is_folder_path, require_usage
from adaptry_cli.connection import RegistryOpener, settings_for
from adaptry_cli.derive_output import OutputTarget, open_named_parent, output_options
from adaptry_cli.inputs import find_base
from adaptry_cli.out import (
    format_number,
    json_option,
    print_err,
    print_json,
    print_lines,
    print_out,
    progress,
)
from adaptry_cli.tables import print_table

if TYPE_CHECKING:
    from adaptry.checks.runtimes import Runtime
    from adaptry.compute.exporting.export import ExportResult
    from adaptry.compute.exporting.options import ExportOptions
    from adaptry.compute.exporting.plan import ExportPlan
    from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
    from adaptry.core.progress import Progress


def _list_formats(ctx: click.Context, option: click.Parameter, is_asked: bool) -> None:
    """Answers `--formats` and ends the command."""
    if not is_asked:
        return
    from adaptry.compute.exporting.formats import FORMATS

    rows = [
        (format.name, format.written_files.replace("`", ""), format.reader.replace("`", ""))
        for format in FORMATS.values()
    ]
    print_table(("format", "writes", "read by"), rows)
    ctx.exit()


@click.command()
@click.argument("source", metavar="REF|DIR")
@click.option(
    "--for",
    "runtime",
    type=RUNTIME,
    help="The engine to serve it with, as in vllm@0.33,max_lora_rank=64: what it needs is repaired.",
)
@click.option(
    "--format", metavar="FORMAT", help="The files to write (--formats lists them); else the engine's."
)
@click.option("--base", metavar="NAME|DIR|ID", help="The base it is for; else the one the registry knows.")
@click.option("--rank", type=click.IntRange(1), help="What is no LoRA becomes one of this rank at most.")
@click.option(
    "--energy", type=float, metavar="SHARE", help="Or of the smallest ranks that keep this share, as in 0.99."
)
@click.option(
    "--dtype",
    type=DTYPE,
    metavar="DTYPE",
    help="float32, float16 or bfloat16, where numbers are computed anew.",
)
@click.option("--exact", is_flag=True, help="Refuse what would change a number of the update.")
@click.option(
    "--max-error",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Largest relative error of the update; 0.1 if not given.",
)
@click.option("--other-base", is_flag=True, help="Also on another base than the adapter is known to be for.")
@click.option("--part", metavar="NAME", help="Which part of a pipeline PEFT's folder is of, as in unet.")
@click.option("--push", "artifact", metavar="oci://HOST/REPO[:TAG]", help="Push it as an OCI artifact.")
@click.option(
    "--subject", metavar="TAG|DIGEST", help="The base's manifest in that repository; else one is made."
)
@click.option("--dry-run", is_flag=True, help="Show the repairs, and make nothing.")
@click.option(
    "--formats",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_formats,
    help="List the formats.",
)
@output_options
@json_option
def export(
    target: OutputTarget,
    connected: RegistryOpener,
    source: str,
    runtime: Runtime | None,
    format: str | None,
    artifact: str | None,
    subject: str | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write an adapter as an engine needs it.

    The engine's verdict decides what is repaired: scales it does not read are folded in, other methods become
    a LoRA, names, ranks and experts are brought into its shape, and what no adapter can tell it goes into the
    base's weights. The result is served as trained, or the export is refused; how near it is to what was
    trained is measured and shown, and beyond --max-error nothing is written.
    """
    require_usage(
        runtime is not None or format is not None or artifact is not None,
        "say --for ENGINE or --format FORMAT",
    )
    require_usage(
        subject is None or artifact is not None, "--subject is a manifest in the registry of --push oci://…"
    )
    require_usage(
        not (artifact and (target.destination or format)),
        "--push writes an OCI artifact; leave out -o and --format",
    )
    require_usage(
        dry_run or target.destination is not None or artifact is not None,
        "say where it goes: -o NAME, -o ./DIR or --push oci://…",
    )
    with progress() as bars:
        parent = open_named_parent(connected, source, bars)
        setting = _setting(connected, parent, bars, {**options, "may_replace": target.may_replace})
        if dry_run:
            plan = _planned(parent, runtime, format, setting)
        elif artifact:
            _push(parent, runtime, setting, artifact, subject, as_json)
            return
        elif isinstance(target.destination, Path):
            from adaptry.compute.exporting.export import export as exported

            made = exported(parent, target.destination, setting, runtime=runtime, format=format)
        else:
            place, digest, made = _derived(connected, parent, runtime, format, target, setting)
    if dry_run:
        _say_plan(plan, as_json)
    elif isinstance(target.destination, Path):
        _say(made, str(target.destination), None, as_json)
    else:
        _say(made, place, digest, as_json)


def _setting(
    connected: RegistryOpener, parent: ParentAdapter, progress: Progress, options: dict[str, Any]
) -> ExportOptions:
    """The base by what the call says, else as the registry knows it. (`Any`: click's values.)"""
    from adaptry.compute.exporting.options import ExportOptions

    base = options.pop("base")
    record, name = _base(connected, parent, base)
    key = base or (str(parent.base.id) if parent.base else None)
    if options["energy"] is not None and not 0 < options["energy"] <= 1:
        raise Invalid(f"--energy is a share from 0 to 1, not {options['energy']:g}")
    require_usage(
        options["rank"] is None or options["energy"] is None,
        "say --rank or --energy, not both: each decides the rank",
    )
    return ExportOptions(
        record=record,
        open_weights=_weights(connected, key, progress),
        base_name=name,
        progress=progress,
        **options,
    )


def _base(
    connected: RegistryOpener, parent: ParentAdapter, base: str | None
) -> tuple[BaseRecord | None, str | None]:
    """The base's record and name, as far as they are known. A folder has no name that others would know."""
    if base is None:
        return parent.base, parent.adapter.config.base_name
    found = find_base(connected, base)
    return found.record, found.name or parent.adapter.config.base_name


def _weights(connected: RegistryOpener, key: str | None, progress: Progress) -> Any:
    """What opens the base's files when they are asked for; None where no base is known. (`Any`:
    `ExportOptions` has the type.)
    """
    from adaptry.bases.hf_folder import open_checkpoint
    from adaptry.operations.base_registry import open_base

    if key is None:
        return None
    if is_folder_path(key):
        return lambda: open_checkpoint(key)
    return lambda: open_base(connected(), key, progress=progress)


def _planned(
    parent: ParentAdapter, runtime: Runtime | None, format: str | None, setting: ExportOptions
) -> ExportPlan:
    from adaptry.checks.runtimes import Runtime
    from adaptry.compute.exporting.export import get_export_format
    from adaptry.compute.exporting.plan import plan_repairs

    engine = get_export_format(format).engine if format and runtime is None else None
    if runtime is None and engine is None:
        raise Invalid("--dry-run shows what an engine needs repaired: say --for ENGINE")
    return plan_repairs(parent, runtime or Runtime(str(engine)), setting)


def _derived(
    connected: RegistryOpener,
    parent: ParentAdapter,
    runtime: Runtime | None,
    format: str | None,
    target: OutputTarget,
    setting: ExportOptions,
) -> tuple[str, str, ExportResult]:
    """A version of the name that the call gives; where it is, its digest, and what was made."""
    from adaptry.operations.export import derive_for_runtime

    if format not in (None, "peft") or runtime is None:
        raise Invalid(
            "a version in the registry is PEFT's folder for an engine: say --for ENGINE, or a folder for"
            " other files (-o ./DIR)"
        )
    assert isinstance(target.destination, AdapterName)
    derived, made = derive_for_runtime(
        connected(), parent, runtime, target.destination, setting, target.options
    )
    version = derived.pushed.version
    return version.label, str(version.digest), made


def _push(
    parent: ParentAdapter,
    runtime: Runtime | None,
    setting: ExportOptions,
    place: str,
    subject: str | None,
    as_json: bool,
) -> None:
    """Repaired if a runtime is given, and pushed as an OCI artifact."""
    from dataclasses import replace

    from adaptry.compute.exporting.artifact_layout import build_artifact
    from adaptry.compute.exporting.export import prepare_export
    from adaptry.compute.exporting.oci.reference import OciReference
    from adaptry.operations.oci.push import OciRepository

    config = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "config.json"
    settings = settings_for(None)
    remote = OciRepository(OciReference.parse(place), config, settings.ca_bundle, settings.proxy)
    if subject:
        setting = replace(setting, subject=remote.descriptor_of(subject))
    with prepare_export(parent, setting, runtime=runtime, format="oci") as found:
        pushed = remote.push(build_artifact(replace(found.parent, revision=parent.revision), setting))
        made = found.result(())
    if pushed.is_listed_by_tag:
        print_err("note: the registry keeps no referrers, so the base's are listed under a tag of its digest")
    _say(made, str(pushed.place), str(pushed.descriptor.digest), as_json)


def _say_plan(plan: ExportPlan, as_json: bool) -> None:
    if as_json:
        steps = [
            {
                "repair": step.repair.name,
                "exact": step.repair.is_exact,
                "findings": [each.code for each in step.findings],
            }
            for step in plan.steps
        ]
        summary = {
            "merged": [each.code for each in plan.needs_merge],
            "open": [each.code for each in plan.unresolved],
        }
        print_json({"runtime": str(plan.runtime), "format": plan.format, "repairs": steps, **summary})
        return
    print_lines(plan.sentences())
    print_err(f"written as {plan.format}; after its repairs it is looked at again")


def _say(made: ExportResult, place: str, digest: str | None, as_json: bool) -> None:
    """The answer: the place (and digest); the story: repairs, notes, and how near it is."""
    for note in made.notes:
        print_err(f"note: {note}")
    print_err(f"repairs: {', '.join(made.repairs) or 'none'}")
    equality = made.equality
    if equality.largest_difference is not None:
        print_err(
            f"{equality.compared_modules} updates formed and compared: the largest difference is"
            f" {equality.largest_difference:g}"
        )
    if equality.error:
        print_err(f"relative error {format_number(equality.error)}")
    if as_json:
        print_json(
            {
                "output": place,
                "digest": digest,
                "format": made.format,
                "repairs": list(made.repairs),
                "relative_error": equality.error,
                "largest_difference": equality.largest_difference,
                "compared": equality.compared_modules,
                "notes": list(made.notes),
            }
        )
    else:
        print_out(f"{place}  {digest}" if digest else place)
