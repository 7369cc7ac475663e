"""`adaptry convert` and `resize`: an adapter of any method as a plain LoRA, and a LoRA at another rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from adaptry.core.errors import Invalid
from adaptry_cli.arguments import DTYPE, is_folder_path, require_usage, validate_options
from adaptry_cli.connection import RegistryOpener
from adaptry_cli.derive_output import OutputTarget, open_named_parent, output_options
from adaptry_cli.out import format_number, json_option, print_err, print_json, progress
from adaptry_cli.parent_report import ReportTarget, report_options, write_and_report
from adaptry_cli.tables import print_table

if TYPE_CHECKING:
    from adaptry.compute.converting.base_shapes import ConversionBase
    from adaptry.compute.converting.options import ConvertOptions
    from adaptry.compute.converting.rank_energy import RankPoint
    from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
    from adaptry.core.progress import Progress

_PLACE = "say where the result goes: -o NAME, or -o ./DIR for a folder"


@click.command()
@click.argument("source", metavar="REF|DIR")
@click.option("--base", metavar="NAME|DIR|ID", help="The base it is for; else the one the registry knows.")
@click.option("--rank", type=click.IntRange(1), help="Bring every update to this rank at most.")
@click.option(
    "--energy", type=float, metavar="SHARE", help="The smallest ranks that keep this share, as in 0.99."
)
@click.option("--uniform", is_flag=True, help="The same rank for every module, for engines that want one.")
@click.option("--dtype", type=DTYPE, metavar="DTYPE", help="float32 (the default), float16 or bfloat16.")
@click.option("--drop-bias", is_flag=True, help="Leave out the biases that the adapter changes.")
@click.option("--whole-weights", type=click.Choice(["none"]), help="none: leave saved modules out.")
@click.option("--other-base", is_flag=True, help="Also on another base than the adapter is known to be for.")
@report_options
@output_options
@json_option
def convert(
    target: OutputTarget,
    connected: RegistryOpener,
    report: ReportTarget,
    source: str,
    base: str | None,
    as_json: bool,
    **said: Any,
) -> None:
    """Make a plain LoRA of an adapter of any method.

    A LoRA's variants are folded, methods that are exactly a LoRA become one exactly, and of all others the nearest LoRA
    is computed; how near is told for every module and overall. What no LoRA can hold is refused.
    """
    from adaptry.compute.converting.convert import convert as converted
    from adaptry.compute.converting.options import ConvertOptions

    require_usage(target.destination is not None, _PLACE)
    asked = validate_options(ConvertOptions, **said)
    with progress() as told:
        parent = open_named_parent(connected, source, told)
        ground = _ground(connected, base, parent, asked, told)
    write_and_report(converted(parent, asked, ground), target, connected, report, as_json)


@click.command()
@click.argument("source", metavar="REF|DIR")
@click.option("--rank", type=click.IntRange(1), help="Bring every module to this rank at most.")
@click.option(
    "--energy", type=float, metavar="SHARE", help="The smallest ranks that keep this share, as in 0.99."
)
@click.option(
    "--allowed",
    metavar="RANKS",
    help="The ranks a server takes, as in 8,16,32: the smallest that keeps --energy (else all), or the largest.",
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
    **said: Any,
) -> None:
    """Bring a LoRA to another rank.

    Each module gets the nearest update of its new rank, and the energy that is kept is told. A rank that a module has
    already leaves its update as it is. `--allowed` makes one rank of all modules.
    """
    from adaptry.compute.converting.resize import ResizeOptions
    from adaptry.compute.converting.resize import resize as resized

    require_usage(dry_run or target.destination is not None, _PLACE)
    require_usage(not (allowed and said["rank"]), "--allowed chooses the rank; leave out --rank")
    with progress() as told:
        parent = open_named_parent(connected, source, told)
    if dry_run:
        require_usage(
            said["energy"] is None, "--dry-run shows the energy that each rank keeps; leave out --energy"
        )
        _say_curve(_points(parent, said["rank"], _ranks(allowed)), as_json)
        return
    said["dtype"] = said["dtype"] or "F32"
    if allowed:
        said |= {"rank": _chosen(parent, _ranks(allowed), said["energy"]), "energy": None, "uniform": True}
    require_usage(
        said["rank"] or said["energy"], "say --rank N, --energy 0.99 or --allowed 8,16; --dry-run shows"
    )
    write_and_report(
        resized(parent, validate_options(ResizeOptions, **said)), target, connected, report, as_json
    )


def _ground(
    connected: RegistryOpener, base: str | None, parent: ParentAdapter, asked: ConvertOptions, told: Progress
) -> ConversionBase | None:
    """The base by what the call says, else as the registry knows it; its weights only where they are needed."""
    from adaptry.bases.fingerprinting import fingerprint
    from adaptry.bases.hf_folder import open_checkpoint
    from adaptry.compute.converting.base_shapes import ConversionBase
    from adaptry.compute.converting.convert import needs_base_values
    from adaptry.operations.base_registry import open_base

    if base is None and parent.base is None:
        return None
    key = base or str(parent.base.id if parent.base else "")
    if is_folder_path(key):
        checkpoint = open_checkpoint(key)
    elif needs_base_values(parent, asked):
        checkpoint = open_base(connected(), key, progress=told)
    else:
        return ConversionBase(connected().base_record(connected().base(key).id))
    return ConversionBase(fingerprint(checkpoint), checkpoint)


def _ranks(text: str | None) -> list[int]:
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


def _chosen(parent: ParentAdapter, ranks: Sequence[int], energy: float | None) -> int:
    """The allowed rank that is taken, told with what it keeps. Raises `Invalid`."""
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


def _say_curve(points: Sequence[RankPoint], as_json: bool) -> None:
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
