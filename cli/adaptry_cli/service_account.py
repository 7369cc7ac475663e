"""`adaptry service-account`: programs that belong to a namespace."""

from __future__ import annotations

import click

from adaptry.registry.access import PrincipalKind
from adaptry.registry.interface import Registry
from adaptry_cli.administration import administered_registry, print_principals
from adaptry_cli.command import group
from adaptry_cli.number_options import limit_option
from adaptry_cli.output import collect_pages, json_option, print_done, print_err, print_json


@group("service-account")
def service_account() -> None:
    """Create, list, disable and enable service accounts: programs that belong to a namespace.

    They never sign in; they use tokens: adaptry token create NAME --for NAMESPACE/NAME.
    """


@service_account.command()
@click.argument("name", metavar="NAMESPACE/NAME")
@administered_registry
@json_option
def create(registry: Registry, name: str, as_json: bool) -> None:
    """Create a service account without rights; `adaptry member set` grants some."""
    created = registry.principals.create("service-account", name)
    if as_json:
        print_json(created)
        return
    print_err(f"created the service account {created.name}, which may do nothing yet")


@service_account.command()
@limit_option
@administered_registry
@json_option
def ls(registry: Registry, limit: int, as_json: bool) -> None:
    """List the service accounts that you manage."""
    kinds: tuple[PrincipalKind, ...] = ("service-account",)
    found = collect_pages(lambda cursor, size: registry.principals.list(cursor, size, kinds=kinds), limit)
    if as_json:
        print_json(found)
        return
    print_principals(found)


@service_account.command()
@click.argument("name", metavar="NAMESPACE/NAME")
@administered_registry
@json_option
def disable(registry: Registry, name: str, as_json: bool) -> None:
    """Disable a service account: within five seconds, its tokens are refused."""
    registry.principals.set_disabled(name, True)
    print_done(
        {"name": name, "is_disabled": True},
        f"{name} is disabled; running servers refuse its tokens within five seconds",
        as_json,
    )


@service_account.command()
@click.argument("name", metavar="NAMESPACE/NAME")
@administered_registry
@json_option
def enable(registry: Registry, name: str, as_json: bool) -> None:
    """Enable a disabled service account again, with the tokens and grants from before."""
    registry.principals.set_disabled(name, False)
    print_done({"name": name, "is_disabled": False}, f"{name} is enabled", as_json)
