"""`adaptry grant`: grants of single actions and roles, beyond a member's role."""

from __future__ import annotations

import click

from adaptry.registry.access import GrantRequest
from adaptry.registry.interface import Registry
from adaptry_cli.administration import administered_registry, print_grants, subject, subject_options
from adaptry_cli.arguments import validate_options
from adaptry_cli.command import group
from adaptry_cli.number_options import WholeNumber, limit_option
from adaptry_cli.output import collect_pages, json_option, print_done, print_err, print_json
from adaptry_cli.renamed_option import RenamedOption


@group()
def grant() -> None:
    """Grant single actions and roles on adapters, namespaces or everything; list and remove grants.

    docs/permissions.md explains actions, resources and conditions.
    """


@grant.command()
@subject_options
@click.argument("permission", metavar="ROLE|ACTION")
@click.argument("resource", metavar="GLOB")
@click.option(
    "--if",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="Such as alias!=prod, state=deprecated or before=2026-12-31T18:00Z; may be repeated: all must hold.",
)
@administered_registry
@json_option
def add(
    registry: Registry,
    name: str,
    is_group: bool,
    permission: str,
    resource: str,
    conditions: tuple[str, ...],
    as_json: bool,
) -> None:
    """Grant NAME a role or an action on the resources GLOB.

    GLOB is `acme`, `team-*`, `acme/tone`, `acme/tone-*` or `*`. Every action also needs `read` there.
    To allow every alias but prod: adaptry grant add NAME alias.move acme --if 'alias!=prod'
    """
    principal = subject(name, is_group)
    request = validate_options(
        GrantRequest,
        **principal.model_dump(),
        permission=permission,
        resource=resource,
        conditions=conditions,
    )
    added = registry.grants.add(request)
    if as_json:
        print_json(added)
        return
    suffix = f" if {' and '.join(added.conditions)}" if added.conditions else ""
    print_err(f"grant {added.id}: {principal} has {added.permission} on {added.resource}{suffix}")


@grant.command()
@click.option("--namespace", metavar="NAME", help="Only grants that name this namespace.")
@click.option(
    "--principal",
    cls=RenamedOption,
    former="--of",
    metavar="NAME",
    help="Only grants to this user, service account or worker.",
)
@limit_option
@administered_registry
@json_option
def ls(registry: Registry, namespace: str | None, principal: str | None, limit: int, as_json: bool) -> None:
    """List grants, including members' roles."""
    found = collect_pages(
        lambda cursor, size: registry.grants.list(namespace, principal, cursor, size), limit
    )
    if as_json:
        print_json(found)
        return
    print_grants(found)


@grant.command()
@click.argument("id", metavar="ID", type=WholeNumber(1))
@administered_registry
@json_option
def rm(registry: Registry, id: int, as_json: bool) -> None:
    """Remove a grant, by the id that `grant ls` shows. Servers apply this within five seconds."""
    registry.grants.remove(id)
    print_done({"revoked": id}, f"removed grant {id}", as_json)
