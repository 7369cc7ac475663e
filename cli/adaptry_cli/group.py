"""`adaptry group`: sets of users, service accounts and workers."""

from __future__ import annotations

import click

from adaptry.registry.access import GroupInfo
from adaptry.registry.interface import Registry
from adaptry_cli.administration import administered_registry
from adaptry_cli.command import group as command_group
from adaptry_cli.number_options import limit_option
from adaptry_cli.output import collect_pages, json_option, print_done, print_json
from adaptry_cli.tables import print_table


@command_group()
def group() -> None:
    """Create, change, list and delete groups; administrators only.

    A group becomes a member like a user: adaptry member set NAMESPACE GROUP --group --role ROLE.
    """


@group.command()
@click.argument("name")
@administered_registry
@json_option
def create(registry: Registry, name: str, as_json: bool) -> None:
    """Create a group."""
    registry.principals.create_group(name)
    print_done({"group": name}, f"created the group {name}", as_json)


@group.command()
@administered_registry
@limit_option
@json_option
def ls(registry: Registry, limit: int, as_json: bool) -> None:
    """List groups with their first members: your own, or all if you are an administrator."""
    found = collect_pages(registry.principals.groups, limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ("group", "members"),
        ((one.name, _members_text(one)) for one in found),
        empty="no groups; `adaptry group create NAME` creates one",
    )


@group.command()
@click.argument("group")
@click.argument("name")
@administered_registry
@json_option
def add(registry: Registry, group: str, name: str, as_json: bool) -> None:
    """Add NAME to a group."""
    registry.principals.set_membership(group, name, True)
    print_done({"group": group, "added": name}, f"{name} is in the group {group}", as_json)


@group.command()
@click.argument("group")
@click.argument("name")
@administered_registry
@json_option
def rm(registry: Registry, group: str, name: str, as_json: bool) -> None:
    """Remove NAME from a group. Servers apply this within five seconds."""
    registry.principals.set_membership(group, name, False)
    print_done({"group": group, "removed": name}, f"{name} is no longer in the group {group}", as_json)


@group.command()
@click.argument("name")
@administered_registry
@json_option
def delete(registry: Registry, name: str, as_json: bool) -> None:
    """Delete a group, its grants, and the mappings of the identity provider's groups to it.

    Users of the provider who are in no other mapped group are signed out within an hour, and cannot sign in.
    """
    registry.principals.delete_group(name)
    print_done({"deleted": name}, f"deleted the group {name} and its grants", as_json)


def _members_text(group: GroupInfo) -> str:
    more = group.size - len(group.members)
    return ", ".join(group.members) + (f" and {more:,} more" if more else "")
