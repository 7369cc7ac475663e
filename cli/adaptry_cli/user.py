"""`adaptry user`: users and workers; service accounts have a separate command."""

from __future__ import annotations

import click

from adaptry.registry.access import InvitationRequest
from adaptry.registry.interface import Registry
from adaptry_cli.administration import administered_registry, print_principals
from adaptry_cli.arguments import validate_options
from adaptry_cli.command import group
from adaptry_cli.number_options import DecimalNumber, limit_option
from adaptry_cli.output import collect_pages, json_option, print_done, print_err, print_json, print_out
from adaptry_cli.times import format_when


@group()
def user() -> None:
    """Create, list, disable and enable users and workers.

    Users have no passwords: invite them (`adaptry user invite`), or create a token for them (`adaptry token
    create`).
    """


@user.command()
@click.argument("name")
@click.option("--worker", is_flag=True, help="Create a worker, which reports what an engine has loaded.")
@administered_registry
@json_option
def create(registry: Registry, name: str, worker: bool, as_json: bool) -> None:
    """Create a user without rights; `adaptry member set` and `adaptry grant add` grant some."""
    created = registry.principals.create("worker" if worker else "user", name)
    if as_json:
        print_json(created)
        return
    print_err(f"created the {created.kind} {created.name}, without rights yet")


@user.command()
@click.argument("name")
@click.option(
    "--hours",
    type=DecimalNumber(0.1, 24 * 14),
    default=24.0,
    show_default=True,
    metavar="N",
    help="How long the code is valid.",
)
@administered_registry
@json_option
def invite(registry: Registry, name: str, hours: float, as_json: bool) -> None:
    """Invite a user: print a code for their first `adaptry login`; the user is created if missing.

    The code works once. A new invitation replaces those before it.
    """
    invited = registry.principals.invite(validate_options(InvitationRequest, name=name, hours=hours))
    if as_json:
        print_json(invited)
        return
    print_out(invited.code)
    print_err(
        f"send this code to {invited.principal}, who runs `adaptry login URL --with-token` and enters it"
        f" before {format_when(invited.expires_at)}; it works once"
    )


@user.command()
@limit_option
@administered_registry
@json_option
def ls(registry: Registry, limit: int, as_json: bool) -> None:
    """List users and workers: yourself, or all if you are an administrator."""
    found = collect_pages(
        lambda cursor, size: registry.principals.list(cursor, size, kinds=("user", "worker")), limit
    )
    if as_json:
        print_json(found)
        return
    print_principals(found)


@user.command()
@click.argument("name")
@administered_registry
@json_option
def disable(registry: Registry, name: str, as_json: bool) -> None:
    """Disable a user: within five seconds, their tokens are refused, and their jobs and schedules stop.

    A user is never deleted, so that the name in the history stays theirs.
    """
    registry.principals.set_disabled(name, True)
    print_done(
        {"name": name, "is_disabled": True},
        f"{name} is disabled; running servers refuse their tokens within five seconds",
        as_json,
    )


@user.command()
@click.argument("name")
@administered_registry
@json_option
def enable(registry: Registry, name: str, as_json: bool) -> None:
    """Enable a disabled user again, with the tokens and grants from before."""
    registry.principals.set_disabled(name, False)
    print_done({"name": name, "is_disabled": False}, f"{name} is enabled", as_json)
