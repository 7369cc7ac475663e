"""`adaptry resize`: a LoRA at another rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from adaptry.core.errors import Invalid
from adaptry_cli.arguments import DTYPE, require_usage, validate_options
from adaptry_cli.connection import RegistryOpener
from adaptry_cli.derive_output import OutputTarget, open_named_parent, output_options, require_destination
from adaptry_cli.out import format_number, json_option, print_err, print_json, progress
from adaptry_cli.parent_report import ReportTarget, report_options, write_and_report
from adaptry_cli.tables import print_table

if TYPE_CHECKING:
    from adaptry.compute.converting.rank_energy import RankPoint
    from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter


@click.command()
@click.argument("source", metavar="REF|DIR")
@click.option("--rank", type=click.IntRange(1), help="Bring every module to this rank at most.")
@click.option(
    "--energy", type=float, metavar="SHARE", help="The smallest ranks that keep this share, as in 0.99."
)
@click.option(
    "--allowed",
    metavar="RANKS",
    help=(
        "The ranks a server takes, as in 8,16,32: the smallest that keeps --energy"
        " (else all), or the largest."
    ),
)
@click.option("--uniform", is_flag=True, help="The same rank for every module; zeros fill it.")
@click.option("--dtype", type=DTYPE, metavar="DTYPE", help="float32 (the default), float16 or bfloat16.")
@click.option("--whole-weights", type=click.Choice(["none"]), help="none: leave saved modules out.")
@click.option("--dry-run", is_flag=True, help="Show what each rank would keep, and make nothing.")
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
    """Bring a LoRA to another rank.

    Each module gets the nearest update of its new rank, and the energy that is kept is shown. A rank that a
    module has already leaves its update as it is. `--allowed` makes one rank of all modules.
    """
    from adaptry.compute.converting.resize import ResizeOptions
    from adaptry.compute.converting.resize import resize as resized

    if not dry_run:
        require_destination(target)
    require_usage(not (allowed and options["rank"]), "--allowed chooses the rank; leave out --rank")
    with progress() as bars:
        parent = open_named_parent(connected, source, bars)
    if dry_run:
        require_usage(
            options["energy"] is None, "--dry-run shows the energy that each rank keeps; leave out --energy"
        )
        _print_curve(_points(parent, options["rank"], _parse_ranks(allowed)), as_json)
        return
    options["dtype"] = options["dtype"] or "F32"
    if allowed:
        options |= {
            "rank": _choose_rank(parent, _parse_ranks(allowed), options["energy"]),
            "energy": None,
            "uniform": True,
        }
    require_usage(
        options["rank"] or options["energy"], "say --rank N, --energy 0.99 or --allowed 8,16; --dry-run shows"
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
    from adaptry.compute.converting.rank_energy import compute_spectra, smallest_allowed_rank
    from adaptry.compute.lazy_adapters.deltas import open_adapter_deltas

    if energy is not None and not 0 < energy <= 1:
        raise Invalid(f"--energy is a share from 0 to 1, not {energy:g}")
    found = smallest_allowed_rank(
        compute_spectra(open_adapter_deltas(parent)), ranks, 1.0 if energy is None else energy
    )
    print_err(
        f"rank {found.rank} of {', '.join(map(str, sorted(set(ranks))))}: keeps {format_number(found.kept)}"
    )
    return found.rank


def _points(parent: ParentAdapter, rank: int | None, allowed: Sequence[int]) -> list[RankPoint]:
    from adaptry.compute.converting.rank_energy import compute_spectra, rank_curve, rank_point
    from adaptry.compute.lazy_adapters.deltas import open_adapter_deltas

    found = compute_spectra(open_adapter_deltas(parent))
    asked = [rank, *allowed] if rank else list(allowed)
    points = {each.rank: each for each in (*rank_curve(found), *(rank_point(found, each) for each in asked))}
    return [points[each] for each in sorted(points)]


def _print_curve(points: Sequence[RankPoint], as_json: bool) -> None:
    from adaptry.compute.converting.rank_energy import as_json as rows

    if as_json:
        print_json({"curve": rows(points)})
        return
    print_table(
        ("rank", "kept energy", "worst module keeps", "worst module"),
        [
            (str(each.rank), format_number(each.kept), format_number(each.worst_kept), each.worst)
            for each in points
        ],
        right=("rank", "kept energy", "worst module keeps"),
    )
