"""`adaptry member`: the members of a namespace with their roles, and its accountable user."""

from __future__ import annotations

import click

from adaptry.core.access.roles import MEMBER_ROLES
from adaptry.registry.access import GrantInfo, MemberChange, NamespaceMembers
from adaptry.registry.interface import Registry
from adaptry.registry.records import Page
from adaptry_cli.administration import administered_registry, subject, subject_options
from adaptry_cli.arguments import validate_options
from adaptry_cli.command import group
from adaptry_cli.number_options import limit_option
from adaptry_cli.output import collect_pages, json_option, print_done, print_err, print_json
from adaptry_cli.renamed_option import RenamedOption
from adaptry_cli.tables import print_table


@group()
def member() -> None:
    """Add, list and remove the members of a namespace.

    docs/permissions.md shows what each role may do.
    """


@member.command()
@click.argument("namespace")
@administered_registry
@limit_option
@json_option
def ls(registry: Registry, namespace: str, limit: int, as_json: bool) -> None:
    """List a namespace's members, and the user who is accountable for it."""
    last: list[NamespaceMembers] = []

    def fetch(cursor: str | None, maximum: int) -> Page[GrantInfo]:
        page = registry.grants.members(namespace, cursor, maximum)
        last[:] = [page]
        return Page(items=page.members, next=page.next)

    members = tuple(collect_pages(fetch, limit))
    found = last[0].model_copy(update={"members": members})
    if as_json:
        print_json(found)
        return
    _print_members(found)


@member.command("set")
@click.argument("namespace")
@subject_options
@click.option("--role", type=click.Choice(MEMBER_ROLES), required=True, help="Their role in the namespace.")
@administered_registry
@json_option
def set_(registry: Registry, namespace: str, name: str, is_group: bool, role: str, as_json: bool) -> None:
    """Add NAME to a namespace with a role, or change a member's role."""
    chosen = subject(name, is_group)
    change = validate_options(MemberChange, **chosen.model_dump(), role=role)
    registry.grants.set_member(namespace, change)
    print_done(
        {"namespace": namespace, "role": role, **chosen.model_dump()},
        f"{chosen} is {role} of {namespace}",
        as_json,
    )


@member.command()
@click.argument("namespace")
@subject_options
@administered_registry
@json_option
def rm(registry: Registry, namespace: str, name: str, is_group: bool, as_json: bool) -> None:
    """Remove NAME from a namespace. Servers apply this within five seconds.

    Rights through a group or a single grant stay: `adaptry access explain` shows them.
    """
    chosen = subject(name, is_group)
    registry.grants.set_member(
        namespace, MemberChange(principal=chosen.principal, group=chosen.group, role=None)
    )
    print_done(
        {"namespace": namespace, "role": None, **chosen.model_dump()},
        f"{chosen} is no longer a member of {namespace}",
        as_json,
    )


@member.command()
@click.argument("namespace")
@click.argument("name", required=False)
@click.option(
    "--clear",
    "is_cleared",
    cls=RenamedOption,
    former="--nobody",
    is_flag=True,
    help="Remove the accountable user.",
)
@administered_registry
@json_option
def accountable(
    registry: Registry, namespace: str, name: str | None, is_cleared: bool, as_json: bool
) -> None:
    """Name the user who is accountable for a namespace. This gives them no rights."""
    if (name is None) != is_cleared:
        raise click.UsageError("pass either the user's NAME or --clear")
    registry.grants.set_accountable(namespace, name)
    print_done(
        {"namespace": namespace, "accountable": name},
        f"{name or 'no one'} is accountable for {namespace}",
        as_json,
    )


def _print_members(found: NamespaceMembers) -> None:
    print_table(
        ("member", "role", "by"),
        ((one.principal or f"group {one.group}", one.permission, one.created_by) for one in found.members),
    )
    print_err(f"accountable for {found.namespace}: {found.accountable or 'no one'}")
