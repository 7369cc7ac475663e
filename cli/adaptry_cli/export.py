"""`adaptry export`: write an adapter as the files that an engine or tool reads, repaired for it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptry.core.errors import Invalid
from adaptry_cli.arguments import BASE, DTYPE, INPUT, RUNTIME, parse_named, require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import RegistryOpener, settings_for
from adaptry_cli.derive_output import OutputTarget, open_named_parent, output_options
from adaptry_cli.number_options import DecimalNumber, WholeNumber
from adaptry_cli.output import (
    format_count,
    format_share,
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
    """Prints the formats and ends the command."""
    if not is_asked:
        return
    from adaptry.compute.exporting.formats import FORMATS

    rows = [
        (format.name, format.written_files.replace("`", ""), format.reader.replace("`", ""))
        for format in FORMATS.values()
    ]
    print_table(("format", "writes", "read by"), rows, cut=("writes", "read by"))
    ctx.exit()


@command()
@click.argument("source", metavar="REF|DIR", type=INPUT)
@click.option(
    "--for",
    "runtime",
    type=RUNTIME,
    help="The engine, such as vllm@0.33,max_lora_rank=64; the adapter is repaired for it.",
)
@click.option(
    "--format", metavar="FORMAT", help="The file format (--formats lists them). Default: the engine's."
)
@click.option(
    "--base",
    metavar="NAME|DIR|ID",
    type=BASE,
    help="The base of the adapter. Default: its own, if it is identified by its content.",
)
@click.option("--rank", type=WholeNumber(1), help="Maximum rank when another method is converted to a LoRA.")
@click.option(
    "--energy",
    type=float,
    metavar="SHARE",
    help=(
        "Convert to the smallest ranks that keep this share of the energy (the squared norm of"
        " the update), such as 0.99."
    ),
)
@click.option(
    "--dtype",
    type=DTYPE,
    metavar="DTYPE",
    help="Dtype of tensors that are computed: float32, float16 or bfloat16.",
)
@click.option(
    "--exact", is_flag=True, help="Allow only repairs that leave every value of the update unchanged."
)
@click.option(
    "--max-error",
    type=DecimalNumber(0, 1),
    metavar="SHARE",
    help="Largest relative error of the update.  [default: 0.1]",
)
@click.option(
    "--other-base", is_flag=True, help="Allow a base other than the one that the adapter was trained on."
)
@click.option(
    "--part", metavar="NAME", help="The part of a pipeline that the adapter belongs to, such as unet."
)
@click.option(
    "--push", "artifact", metavar="oci://HOST/REPO[:TAG]", help="Push the result as an OCI artifact."
)
@click.option(
    "--subject", metavar="TAG|DIGEST", help="The base's manifest in that repository. Default: a new one."
)
@click.option("--dry-run", is_flag=True, help="Show the repairs; write nothing.")
@click.option(
    "--formats",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_formats,
    help="List the formats and exit.",
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
    """Export an adapter in a form that an engine serves as trained.

    The engine's verdict decides the repairs: scales that it ignores are folded into the weights, other
    methods are converted to a LoRA, names, ranks and experts are changed to what it expects, and features
    that no adapter can express are merged into the base. The result is served as trained, or the export is
    refused. The error is measured and shown; if it exceeds --max-error, nothing is written.
    """
    require_usage(
        runtime is not None or format is not None or artifact is not None,
        "pass --for ENGINE or --format FORMAT",
    )
    require_usage(subject is None or artifact is not None, "--subject needs --push oci://…")
    require_usage(
        not (artifact and (target.destination or format)),
        "--push writes an OCI artifact; leave out -o and --format",
    )
    require_usage(
        dry_run or target.destination is not None or artifact is not None,
        "pass a destination: -o NAME, -o ./DIR or --push oci://…",
    )
    from adaptry.operations.known_base import base_or_known
    from adaptry.operations.sources import with_configured_base

    with (
        progress() as bars,
        base_or_known(connected, parse_named(source), options["base"], print_err) as options["base"],
    ):
        parent = with_configured_base(open_named_parent(connected, source, bars), options["base"])
        setting = _setting(connected, parent, bars, {**options, "may_replace": target.may_replace})
        if dry_run:
            from adaptry.operations.export import plan_export

            plan = plan_export(parent, runtime, format or ("oci" if artifact else None), setting)
        elif artifact:
            _push(parent, runtime, setting, artifact, subject, as_json)
            return
        else:
            from adaptry.operations.export import write_export

            assert target.destination is not None
            output = write_export(
                connected, parent, runtime, format, target.destination, setting, target.options
            )
    if dry_run:
        _print_plan(plan, format or "oci", as_json)
        return
    digest = str(output.pushed.version.digest) if output.pushed else None
    _print_export(output.result, output.location, digest, as_json)


def _setting(
    connected: RegistryOpener, parent: ParentAdapter, progress: Progress, options: dict[str, Any]
) -> ExportOptions:
    """The base from the options, else from the registry. (`Any`: click's values.)"""
    from adaptry.operations.export import export_options

    if options["energy"] is not None and not 0 < options["energy"] <= 1:
        raise Invalid(f"--energy must be a share from 0 to 1, not {options['energy']:g}")
    require_usage(
        options["rank"] is None or options["energy"] is None,
        "pass --rank or --energy, not both: each decides the rank",
    )
    base = options.pop("base")
    return replace(export_options(connected, parent, base, progress), **options)


def _push(
    parent: ParentAdapter,
    runtime: Runtime | None,
    setting: ExportOptions,
    place: str,
    subject: str | None,
    as_json: bool,
) -> None:
    """Repairs the adapter if a runtime is given, and pushes it as an OCI artifact."""
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
        print_err(
            "note: the OCI registry has no referrers API, so the base's referrers are listed under a tag"
            " of its digest"
        )
    _print_export(made, str(pushed.place), str(pushed.descriptor.digest), as_json)


def _print_plan(plan: ExportPlan | None, format: str, as_json: bool) -> None:
    """Prints the repairs for an engine; without one (`plan` None), that the files are written as they are."""
    if plan is None:
        if as_json:
            print_json({"runtime": None, "format": format, "repairs": [], "merged": [], "open": []})
        else:
            print_out("nothing to repair: repairs depend on the engine, and none was named (--for ENGINE)")
            print_err(f"format: {format}")
        return
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
    checked = "; the repaired adapter is checked again before it is written" if plan.steps else ""
    print_err(f"format: {plan.format}{checked}")


def _print_export(made: ExportResult, place: str, digest: str | None, as_json: bool) -> None:
    """Prints the location and the digest on stdout; repairs, notes and the error on stderr."""
    for note in made.notes:
        print_err(f"note: {note}")
    print_err(f"repairs: {', '.join(made.repairs) or 'none'}")
    equality = made.equality
    if equality.largest_difference is not None:
        print_err(
            f"compared the updates of {format_count(equality.compared_modules, 'module')}:"
            f" largest difference {equality.largest_difference:g}"
        )
    if equality.error:
        print_err(f"relative error {format_share(equality.error)}")
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
