"""`adaptry publisher`: CI jobs that push to an adapter without a stored token."""

from __future__ import annotations

import click

from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry.registry.publishers import PublisherRequest
from adaptry_cli.administration import administered_registry
from adaptry_cli.arguments import validate_options
from adaptry_cli.command import group
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import json_option, print_done, print_err, print_json
from adaptry_cli.tables import print_table
from adaptry_cli.times import format_when


@group()
def publisher() -> None:
    """Let jobs of a CI system push to an adapter without a stored token.

    A publisher is a workflow of one repository. Its jobs get a token that is valid for 15 minutes, for this
    adapter only.
    """


@publisher.command()
@click.argument("name", metavar="NAMESPACE/NAME")
@click.option(
    "--issuer", required=True, metavar="ISSUER", help="The trusted issuer; see `adaptry issuer ls`."
)
@click.option(
    "--project-id",
    required=True,
    metavar="NUMBER",
    help="The repository's number: `repository_id` of GitHub, `project_id` of GitLab.",
)
@click.option(
    "--owner-id",
    required=True,
    metavar="NUMBER",
    help="Its owner's number: `repository_owner_id` of GitHub, `namespace_id` of GitLab.",
)
@click.option(
    "--workflow",
    required=True,
    metavar="PATH",
    help="The file that defines the job, such as .github/workflows/release.yml or .gitlab-ci.yml.",
)
@click.option("--environment", metavar="ENVIRONMENT", help="Only jobs in this environment.")
@click.option("--branch", metavar="BRANCH", help="Only jobs on this branch.")
@administered_registry
@json_option
def add(
    registry: Registry,
    name: str,
    issuer: str,
    project_id: str,
    owner_id: str,
    workflow: str,
    environment: str | None,
    branch: str | None,
    as_json: bool,
) -> None:
    """Let the jobs of a workflow push to an adapter.

    Pass --environment, --branch, or both. The adapter need not exist: the first job may create it.
    """
    request = validate_options(
        PublisherRequest,
        issuer=issuer,
        project_id=project_id,
        owner_id=owner_id,
        workflow=workflow,
        environment=environment,
        branch=branch,
    )
    added = registry.publishers.add(AdapterName.parse(name), request)
    if as_json:
        print_json(added)
        return
    print_err(f"publisher {added.id}: jobs of {added.workflow} push to {added.adapter} as {added.account}")


@publisher.command()
@click.argument("name", metavar="NAMESPACE/NAME")
@administered_registry
@json_option
def ls(registry: Registry, name: str, as_json: bool) -> None:
    """List the publishers of an adapter."""
    found = registry.publishers.list(AdapterName.parse(name))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "issuer", "project", "owner", "workflow", "environment", "branch", "as", "added", "by"),
        (
            (
                str(one.id),
                one.issuer,
                one.project_id,
                one.owner_id,
                one.workflow,
                one.environment or "",
                one.branch or "",
                one.account,
                format_when(one.created_at),
                one.created_by,
            )
            for one in found
        ),
        right=("id",),
        empty=f"{name} has no publishers; `adaptry publisher add` adds one",
    )


@publisher.command()
@click.argument("name", metavar="NAMESPACE/NAME")
@click.argument("id", type=WholeNumber(1))
@administered_registry
@json_option
def rm(registry: Registry, name: str, id: int, as_json: bool) -> None:
    """Remove a publisher. Tokens of its jobs are refused within five seconds."""
    registry.publishers.remove(AdapterName.parse(name), id)
    print_done({"adapter": name, "id": id}, f"publisher {id} of {name} may no longer push", as_json)
