"""`adaptry resize`: change the rank of a LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from adaptry.core.errors import Invalid
from adaptry_cli.arguments import DTYPE, INPUT, require_usage, validate_options
from adaptry_cli.command import command
from adaptry_cli.connection import RegistryOpener
from adaptry_cli.derive_output import OutputTarget, open_named_parent, output_options, require_destination
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import format_share, json_option, print_err, print_json, progress
from adaptry_cli.parent_report import ReportTarget, report_options, write_and_report
from adaptry_cli.tables import print_table

if TYPE_CHECKING:
    from adaptry.compute.conversion.rank_energy import RankPoint
    from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter


@command()
@click.argument("source", metavar="REF|DIR", type=INPUT)
@click.option("--rank", type=WholeNumber(1), help="Maximum rank of every module.")
@click.option(
    "--energy",
    type=float,
    metavar="SHARE",
    help=(
        "Choose the smallest ranks that keep this share of the energy (the squared norm of"
        " the update), such as 0.99."
    ),
)
@click.option(
    "--allowed",
    metavar="RANKS",
    help=(
        "Choose one of these ranks, such as 8,16,32, for all modules: the smallest that keeps --energy"
        " (default: all of it), or the largest if none does."
    ),
)
@click.option("--uniform", is_flag=True, help="Use the same rank for every module, padded with zeros.")
@click.option("--dtype", type=DTYPE, metavar="DTYPE", help="float32 (the default), float16 or bfloat16.")
@click.option(
    "--whole-weights",
    type=click.Choice(["none"]),
    help=(
        "`none` leaves out the adapter's whole weights: modules_to_save, biases and trainable_token_indices."
    ),
)
@click.option("--dry-run", is_flag=True, help="Show the energy that each rank would keep; write nothing.")
@report_options
@output_options
@json_option
def resize(
    target: OutputTarget,
    connected: RegistryOpener,
    report: ReportTarget,
    source: str,
    allowed: str | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Change the rank of a LoRA.

    Each module gets the nearest update of its new rank, and the energy that it keeps is shown. A module that
    already has the rank keeps its update. --allowed chooses one rank for all modules.
    """
    from adaptry.compute.conversion.rank_choice import plan_ranks
    from adaptry.compute.conversion.resize import ResizeOptions
    from adaptry.compute.conversion.resize import resize as resized

    if not dry_run:
        require_destination(target)
    require_usage(not (allowed and options["rank"]), "--allowed chooses the rank; leave out --rank")
    with progress() as bars:
        parent = open_named_parent(connected, source, bars)
    if dry_run:
        require_usage(
            options["energy"] is None, "--dry-run shows the energy that each rank keeps; leave out --energy"
        )
        rank = options["rank"]
        _print_curve(plan_ranks(parent, [*([rank] if rank else []), *_parse_ranks(allowed)]).points, as_json)
        return
    options["dtype"] = options["dtype"] or "F32"
    if allowed:
        options |= {
            "rank": _choose_rank(parent, _parse_ranks(allowed), options["energy"]),
            "energy": None,
            "uniform": True,
        }
    require_usage(
        options["rank"] or options["energy"],
        "pass --rank N, --energy 0.99 or --allowed 8,16; --dry-run shows what each rank keeps",
    )
    write_and_report(
        resized(parent, validate_options(ResizeOptions, **options)), target, connected, report, as_json
    )


def _parse_ranks(text: str | None) -> list[int]:
    """`8,16,32` as numbers. Raises `Invalid`."""
    if text is None:
        return []
    try:
        ranks = [int(part) for part in text.split(",")]
    except ValueError:
        ranks = []
    if not ranks or min(ranks) < 1:
        raise Invalid(f"not ranks: {text[:80]!r} (write them as in 8,16,32)")
    return ranks


def _choose_rank(parent: ParentAdapter, ranks: Sequence[int], energy: float | None) -> int:
    """Chooses one of the allowed ranks, and prints it with the energy that it keeps. Raises `Invalid`."""
    from adaptry.compute.conversion.rank_choice import choose_rank

    if energy is not None and not 0 < energy <= 1:
        raise Invalid(f"--energy must be a share from 0 to 1, not {energy:g}")
    found = choose_rank(parent, ranks, energy)
    wanted = 1.0 if energy is None else energy
    is_enough = found.kept >= wanted
    reason = "the smallest allowed rank that keeps" if is_enough else "the largest allowed rank; none keeps"
    print_err(
        f"chose rank {found.rank}, {reason} {format_share(wanted)} of the energy"
        f" (allowed: {', '.join(map(str, sorted(set(ranks))))}); energy kept {format_share(found.kept)}"
    )
    return found.rank


def _print_curve(points: Sequence[RankPoint], as_json: bool) -> None:
    from adaptry.compute.conversion.rank_energy import as_json as rows

    if as_json:
        print_json({"curve": rows(points)})
        return
    print_table(
        ("rank", "energy kept", "worst module keeps", "worst module"),
        [
            (str(each.rank), format_share(each.kept), format_share(each.worst_kept), each.worst)
            for each in points
        ],
        right=("rank", "energy kept", "worst module keeps"),
        cut=("worst module",),
        drop=("worst module",),
    )
