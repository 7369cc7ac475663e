"""`adaptry sso`: groups and users of the identity provider."""

from __future__ import annotations

import click

from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items
from adaptry.registry.sso import ExternalUserRequest, ProviderGroupRequest
from adaptry_cli.administration import administered_registry
from adaptry_cli.arguments import validate_options
from adaptry_cli.command import group
from adaptry_cli.output import json_option, print_done, print_err, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.times import format_when


@group()
def sso() -> None:
    """Map groups of the identity provider, and link its users; administrators only.

    Members of a mapped group may sign in, and are added to the group here at every sign-in. To grant the
    group rights, use `adaptry member set` and `adaptry grant add`.
    """


@sso.command("map")
@click.argument("claim")
@click.argument("group")
@administered_registry
@json_option
def map_(registry: Registry, claim: str, group: str, as_json: bool) -> None:
    """Map a group of the provider, named as in its claim, to the existing GROUP."""
    mapped = registry.sso.map_group(validate_options(ProviderGroupRequest, claim=claim, group=group))
    if as_json:
        print_json(mapped)
        return
    print_err(f"members of {mapped.claim} join {mapped.group} when they sign in")


@sso.command()
@administered_registry
@json_option
def ls(registry: Registry, as_json: bool) -> None:
    """List the mapped groups."""
    found = registry.sso.list_groups()
    if as_json:
        print_json(found)
        return
    print_table(
        ("claim", "group", "mapped", "by"),
        ((one.claim, one.group, format_when(one.set_at), one.set_by) for one in found),
        empty="no mapped groups; `adaptry sso map CLAIM GROUP` maps one",
    )


@sso.command()
@click.argument("claim")
@administered_registry
@json_option
def unmap(registry: Registry, claim: str, as_json: bool) -> None:
    """Remove a mapping. Members stay in the group until `adaptry group rm`.

    Users of the provider who are in no other mapped group are signed out within an hour, and cannot sign in.
    """
    registry.sso.unmap_group(claim)
    print_done({"claim": claim}, f"{claim} is no longer mapped to a group", as_json)


@sso.command()
@click.argument("user")
@click.option("--issuer", required=True, metavar="URL", help="The provider: the claim `iss` of its tokens.")
@click.option("--subject", required=True, metavar="TEXT", help="The user there: the claim `sub`.")
@administered_registry
@json_option
def link(registry: Registry, user: str, issuer: str, subject: str, as_json: bool) -> None:
    """Let a user of the provider sign in as the existing USER."""
    request = validate_options(ExternalUserRequest, user=user, issuer=issuer, subject=subject)
    linked = registry.sso.link_user(request)
    if as_json:
        print_json(linked)
        return
    print_err(f"{linked.subject} of {linked.issuer} signs in as {linked.user}")


@sso.command()
@administered_registry
@json_option
def users(registry: Registry, as_json: bool) -> None:
    """List the users who are linked or have signed in."""
    found = tuple(iter_items(lambda cursor: registry.sso.list_users(cursor, 200)))
    if as_json:
        print_json(found)
        return
    print_table(
        ("user", "issuer", "subject", "confirmed", "ended"),
        (
            (
                one.user,
                one.issuer,
                one.subject,
                format_when(one.confirmed_at) if one.confirmed_at else "",
                format_when(one.ended_at) if one.ended_at else "",
            )
            for one in found
        ),
        empty="no user is linked or has signed in",
    )
