"""`adaptry issuer`: providers of ID tokens, whose CI jobs may publish."""

from __future__ import annotations

import click

from adaptry.core.access.ci_jobs import ISSUER_KINDS
from adaptry.core.errors import Invalid
from adaptry.registry.interface import Registry
from adaptry.registry.publishers import IssuerRequest
from adaptry_cli.administration import administered_registry
from adaptry_cli.arguments import validate_options
from adaptry_cli.command import group
from adaptry_cli.output import json_option, print_done, print_err, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.times import format_when

GITHUB, GITLAB = "https://token.actions.githubusercontent.com", "https://gitlab.com"
_URLS = {"github": GITHUB, "gitlab": GITLAB}


@group()
def issuer() -> None:
    """Trust, list and remove issuers of ID tokens for CI jobs; administrators only.

    An issuer is trusted for the whole registry; `adaptry publisher` chooses which of its jobs may push where.
    """


@issuer.command()
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(tuple(ISSUER_KINDS)),
    required=True,
    help="The CI system that issues the tokens, which determines their claims.",
)
@click.option("--url", metavar="URL", help=f"The claim `iss`. Default: {GITHUB} or {GITLAB}, by the kind.")
@click.option(
    "--audience",
    metavar="URL",
    help="The claim `aud`: this registry's address, as CI jobs reach it. Default: the server's address.",
)
@administered_registry
@json_option
def add(
    registry: Registry, name: str, kind: str, url: str | None, audience: str | None, as_json: bool
) -> None:
    """Trust an issuer, under a NAME of your choice."""
    audience = audience or _address(registry)
    request = validate_options(IssuerRequest, name=name, kind=kind, url=url or _URLS[kind], audience=audience)
    added = registry.publishers.add_issuer(request)
    if as_json:
        print_json(added)
        return
    print_err(f"tokens of {added.url} for {added.audience} are trusted, under the name {added.name}")


@issuer.command()
@administered_registry
@json_option
def ls(registry: Registry, as_json: bool) -> None:
    """List the trusted issuers."""
    found = registry.publishers.list_issuers()
    if as_json:
        print_json(found)
        return
    print_table(
        ("name", "kind", "url", "audience", "added", "by"),
        (
            (one.name, one.kind, one.url, one.audience, format_when(one.created_at), one.created_by)
            for one in found
        ),
        empty="no trusted issuers; `adaptry issuer add NAME --kind github` trusts one",
    )


@issuer.command()
@click.argument("name")
@administered_registry
@json_option
def rm(registry: Registry, name: str, as_json: bool) -> None:
    """Stop trusting an issuer that no publisher uses."""
    registry.publishers.remove_issuer(name)
    print_done({"name": name}, f"the issuer {name} is no longer trusted", as_json)


def _address(registry: Registry) -> str:
    """The server's address. Raises `Invalid` in a registry's folder, which has no address."""
    url = getattr(registry, "url", None)
    if not isinstance(url, str):
        raise Invalid("pass --audience: the address of this registry, as CI jobs reach it")
    return url
