"""`adaptry token create`, `ls` and `revoke`: credentials of users, service accounts and workers."""

from __future__ import annotations

import click

from adaptry.core.access.roles import ROLES
from adaptry.registry.access import CreatedToken, TokenInfo, TokenRequest
from adaptry.registry.interface import Registry
from adaptry_cli.administration import administered_registry
from adaptry_cli.arguments import require_usage, validate_options
from adaptry_cli.command import group
from adaptry_cli.number_options import WholeNumber, limit_option
from adaptry_cli.output import collect_pages, json_option, print_done, print_err, print_json, print_out
from adaptry_cli.tables import print_table
from adaptry_cli.times import format_when

_HUB = "hf_"


@group()
def token() -> None:
    """Create, list and revoke tokens.

    Works through a server, or on its machine in the folder that it serves, even while the server runs.
    """


@token.command()
@click.argument("name")
@click.option(
    "--for",
    "principal",
    metavar="NAME",
    help="The principal of the token; the argument NAME is then only a label.",
)
@click.option(
    "--only",
    "permissions",
    multiple=True,
    metavar="ROLE|ACTION",
    help="With --for: limit the token to this; may be repeated.",
)
@click.option(
    "--on",
    "resources",
    multiple=True,
    metavar="GLOB",
    help="With --for: limit the token to these resources; may be repeated.",
)
@click.option(
    "--role",
    type=click.Choice(tuple(ROLES)),
    help="Without --for: the role to grant to the user NAME, who is created if missing.  [default: viewer]",
)
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    metavar="GLOB",
    help="Without --for: the namespaces in which to grant the role; may be repeated.",
)
@click.option(
    "--days",
    type=WholeNumber(1, 3650),
    default=90,
    show_default=True,
    metavar="DAYS",
    help="Days until the token expires.",
)
@click.option(
    "--hf",
    is_flag=True,
    help="Print the token with the prefix `hf_`, which JavaScript clients of the Hub require.",
)
@administered_registry
@json_option
def create(
    registry: Registry,
    name: str,
    principal: str | None,
    permissions: tuple[str, ...],
    resources: tuple[str, ...],
    role: str | None,
    namespaces: tuple[str, ...],
    days: int,
    hf: bool,
    as_json: bool,
) -> None:
    """Create a token and print it, once.

    A token acts for a user, a service account or a worker (its principal), and never has more rights than
    they have. --for names the principal, and --only and --on limit the token further. Administrators may pass
    --namespace instead: NAME is then a user (with --role worker: a worker), who is created if missing and
    granted the role in the namespace; the token is limited to that grant. The history names the principal of
    every change made with the token. When the token is used, its prefix `hf_` may be left out.
    """
    if principal is None:
        require_usage(
            bool(namespaces),
            "pass --for NAME, the token's principal, or --namespace GLOB (acme, team-*, or * for all), where"
            " the role is granted to the user",
        )
        require_usage(not permissions and not resources, "--only and --on need --for")
        request = validate_options(
            TokenRequest, name=name, role=role or "viewer", namespaces=namespaces, days=days
        )
    else:
        require_usage(role is None and not namespaces, "pass either --for, or --role and --namespace")
        request = validate_options(
            TokenRequest,
            name=name,
            principal=principal,
            permissions=permissions or None,
            resources=resources or None,
            days=days,
        )
    is_new = principal is None and not _is_known(registry, name)
    created = registry.tokens.create(request)
    if is_new:
        kind = "worker" if role == "worker" else "user"
        print_err(f"note: {created.principal} is a new {kind}, created with this token")
    _print_created(created, _HUB + created.secret if hf else created.secret, as_json)


def _is_known(registry: Registry, name: str) -> bool:
    """Whether there is a principal of this name, as far as the caller may know."""
    first = registry.principals.list(limit=1, prefix=name).items
    return any(one.name == name for one in first)


def _print_created(created: CreatedToken, secret: str, as_json: bool) -> None:
    if as_json:
        print_json({**created.model_dump(mode="json", exclude={"secret"}), "token": secret})
        return
    print_out(secret)
    until = f"until {format_when(created.expires_at)}" if created.expires_at else "until it is revoked"
    print_err(
        f"a token of {created.principal}, valid {until}; it cannot be shown again"
        f" (to revoke it: adaptry token revoke {created.id})"
    )


@token.command()
@limit_option
@administered_registry
@json_option
def ls(registry: Registry, limit: int, as_json: bool) -> None:
    """List tokens, without their secrets: your own, or all if you are an administrator."""
    found = collect_pages(registry.tokens.list, limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "of", "name", "limited to", "ends in", "created", "by", "expires", "last used", "revoked"),
        (
            (
                str(one.id),
                one.principal,
                one.name,
                _limit(one),
                one.last_four,
                format_when(one.created_at),
                one.created_by,
                format_when(one.expires_at) if one.expires_at else "never",
                format_when(one.last_used_at) if one.last_used_at else "",
                format_when(one.revoked_at) if one.revoked_at else "",
            )
            for one in found
        ),
        right=("id",),
        cut=("namespaces",),
        drop=("ends in", "created", "namespaces", "expires"),
        empty="no tokens; `adaptry token create NAME` creates one",
    )


@token.command()
@click.argument("id", metavar="ID", type=WholeNumber(1))
@administered_registry
@json_option
def revoke(registry: Registry, id: int, as_json: bool) -> None:
    """Revoke a token, by the id that `token ls` shows."""
    registry.tokens.revoke(id)
    print_done(
        {"revoked": id}, f"token {id} is revoked; running servers refuse it within five seconds", as_json
    )


def _limit(token: TokenInfo) -> str:
    permissions = ", ".join(token.permissions) if token.permissions is not None else ""
    resources = f"on {', '.join(token.resources)}" if token.resources is not None else ""
    return " ".join(filter(None, (permissions, resources)))
