"""`adaptry rollout start`, `status`, `advance`, `abort`: move an alias gradually."""

from __future__ import annotations

import re
from datetime import timedelta

import click

from adaptry.core.errors import Invalid, NotFound
from adaptry.core.refs import AdapterName, Label, Ref, parse_selector, parse_stored_alias
from adaptry.registry.interface import Registry
from adaptry.registry.rollouts import RolloutChange, RolloutInfo, RolloutPlan, Rollouts
from adaptry_cli.arguments import NAME, REF, VERSION, validate_options
from adaptry_cli.command import group
from adaptry_cli.connection import registry_option
from adaptry_cli.durations import DURATION
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import json_option, print_answer, print_err, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.times import exact_times_option, format_when

_ref = click.argument("ref", metavar="NAME@ALIAS", type=REF)


@group()
def rollout() -> None:
    """Move an alias to a version gradually, on more and more workers.

    The rollout stops if a worker reports that it cannot load the version, or that the engine fails with it.
    At 100 %, the alias moves, unless someone has moved it in the meantime.
    """


@rollout.command()
@_ref
@click.option(
    "--to", "to", required=True, metavar="VERSION", type=VERSION, help="The version: a number, or a digest."
)
@click.option(
    "--percent",
    type=WholeNumber(1, 100),
    help="Percentage of the workers to begin with; the next step is 100.",
)
@click.option(
    "--steps", metavar="N,N…", help="Percentages of the workers, step by step.  [default: 10,50,100]"
)
@click.option(
    "--every",
    type=DURATION,
    metavar="DURATION",
    help=(
        "Take the next step automatically after this time (30s, 10m, 2h), once all workers of the step serve"
        " the version. Default: `adaptry rollout advance` takes it."
    ),
)
@registry_option
@json_option
def start(
    registry: Registry,
    ref: Ref,
    to: str,
    percent: int | None,
    steps: str | None,
    every: timedelta | None,
    as_json: bool,
) -> None:
    """Start a rollout: the first workers serve the version from now on."""
    name, alias = _alias(ref)
    interval = None if every is None else int(every.total_seconds())
    wanted = validate_options(RolloutPlan, steps=_steps(percent, steps), interval=interval)
    target = registry.versions.get(Ref(name, parse_selector(to)))
    begun = registry.rollouts.start(name, alias, target.digest, wanted)
    print_answer(begun, _line(begun), as_json)


@rollout.command()
@click.argument("name", metavar="NAME", type=NAME)
@registry_option
@exact_times_option
@json_option
def status(registry: Registry, name: AdapterName, as_json: bool) -> None:
    """Show the rollouts of an adapter, newest first."""
    found = registry.rollouts.list(name)
    if as_json:
        print_json(found)
        return
    print_table(
        ("alias", "from", "to", "percent", "stage", "since", "by", "reason"),
        (
            (
                one.alias,
                str(one.was_number),
                str(one.number),
                str(one.percent),
                one.stage,
                format_when(one.step_at),
                one.started_by,
                one.reason or "",
            )
            for one in found
        ),
        right=("from", "to", "percent"),
        cut=("reason",),
        drop=("by", "since"),
    )
    if not found:
        print_err(f"{name} has no rollouts")


@rollout.command()
@_ref
@registry_option
@json_option
def advance(registry: Registry, ref: Ref, as_json: bool) -> None:
    """Advance a rollout to its next step now."""
    _change(registry.rollouts, ref, RolloutChange(to="advance"), as_json)


@rollout.command()
@_ref
@click.option("--reason", metavar="TEXT", help="Why; stored in the history.")
@registry_option
@json_option
def abort(registry: Registry, ref: Ref, reason: str | None, as_json: bool) -> None:
    """Stop a rollout: all workers return to the version that the alias points at."""
    _change(registry.rollouts, ref, validate_options(RolloutChange, to="abort", reason=reason), as_json)


def _change(rollouts: Rollouts, ref: Ref, change: RolloutChange, as_json: bool) -> None:
    name, alias = _alias(ref)
    going = next((one for one in rollouts.list(name) if one.alias == alias and one.stage == "running"), None)
    if going is None:
        raise NotFound(f"{ref} has no running rollout; `adaptry rollout status {name}` lists earlier ones")
    changed = rollouts.change(name, alias, change, going.generation)
    print_answer(changed, _line(changed), as_json)


def _line(one: RolloutInfo) -> str:
    return f"{one.name}@{one.alias} from {one.was_number} to {one.number}: {one.percent} %, {one.stage}"


def _alias(ref: Ref) -> tuple[AdapterName, str]:
    if not isinstance(ref.selector, Label):
        raise Invalid(f"name the alias to move, as in {ref.name}@prod")
    return ref.name, parse_stored_alias(ref.selector.label)


def _steps(percent: int | None, steps: str | None) -> tuple[int, ...]:
    if steps is None:
        return (10, 50, 100) if percent is None else (percent,)
    if percent is not None:
        raise Invalid("pass --steps or --percent, not both")
    if not re.fullmatch(r"\d{1,3}(,\d{1,3})*", steps):
        raise Invalid(f"not steps: {steps[:80]!r} (write rising percentages, as in 10,50,100)")
    return tuple(int(step) for step in steps.split(","))
