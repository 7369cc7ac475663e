"""`adaptry quota`: limits on the storage and requests of namespaces and principals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from adaptry.core.quotas import EVERY, UNLIMITED, QuotaSubject
from adaptry.registry.interface import Registry
from adaptry.registry.quotas import QuotaInfo, QuotaRequest
from adaptry_cli.administration import administered_registry
from adaptry_cli.arguments import validate_options
from adaptry_cli.command import group
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import format_size, json_option, print_done, print_json
from adaptry_cli.sizes import SIZE
from adaptry_cli.tables import print_table

_NO_LIMIT = "unlimited"


class _OrUnlimited(click.ParamType):  # type: ignore[type-arg]  # subscriptable since click 8.5
    """A parameter type that also accepts `unlimited`. (`Any`: click's own.)"""

    def __init__(self, limited: click.ParamType) -> None:  # type: ignore[type-arg]  # as above
        self.limited, self.name = limited, limited.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return UNLIMITED if value == _NO_LIMIT else self.limited.convert(value, param, ctx)


@group()
def quota() -> None:
    """Show and set limits on the storage and requests of namespaces and principals.

    Limits apply to users of a server, not to work in the registry's own folder. docs/limits.md explains what
    counts for whom.
    """


def _subject_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the argument NAME and `--principal`, and passes both. (`Any`: each command has its arguments.)"""
    flag = click.option(
        "--principal", "is_principal", is_flag=True, help="NAME is a user, a service account or a worker."
    )
    return click.argument("name")(flag(command))


@quota.command()
@_subject_options
@administered_registry
@json_option
def show(registry: Registry, name: str, is_principal: bool, as_json: bool) -> None:
    """Show the limits of a namespace or a principal, and what it uses."""
    (found,) = registry.quotas.list(_subject(name, is_principal))
    if as_json:
        print_json(found)
        return
    _print((found,))


@quota.command()
@administered_registry
@json_option
def ls(registry: Registry, as_json: bool) -> None:
    """List the quotas that are set: your own, or all if you are an administrator."""
    found = registry.quotas.list()
    if as_json:
        print_json(found)
        return
    _print(found)


@quota.command("set")
@_subject_options
@click.option("--bytes", "size", type=_OrUnlimited(SIZE), metavar="SIZE", help="Stored files, such as 500GB.")
@click.option("--versions", type=_OrUnlimited(WholeNumber(0)), metavar="N", help="Versions of all adapters.")
@click.option("--uploads", type=_OrUnlimited(WholeNumber(0)), metavar="N", help="Uploads open at once.")
@click.option("--requests", type=_OrUnlimited(WholeNumber(1)), metavar="N", help="Requests per minute.")
@administered_registry
@json_option
def set_(
    registry: Registry,
    name: str,
    is_principal: bool,
    size: int | None,
    versions: int | None,
    uploads: int | None,
    requests: int | None,
    as_json: bool,
) -> None:
    """Set limits for a namespace or a principal; its other limits stay.

    The NAME '*' sets the limits of all names without their own; `unlimited` exempts a name from such a limit.
    """
    given = {"bytes": size, "versions": versions, "uploads": uploads, "requests": requests}
    changes = {key: value for key, value in given.items() if value is not None}
    if not changes:
        raise click.UsageError("pass at least one of --bytes, --versions, --uploads and --requests")
    subject = _subject(name, is_principal)
    (now,) = registry.quotas.list(subject)
    kept = {key: getattr(now, key) for key in now.own}
    request = validate_options(QuotaRequest, scope=subject.scope, name=subject.name, **(kept | changes))
    changed = registry.quotas.set(request)
    if as_json:
        print_json(changed)
        return
    _print((changed,))


@quota.command()
@_subject_options
@administered_registry
@json_option
def rm(registry: Registry, name: str, is_principal: bool, as_json: bool) -> None:
    """Remove the limits that were set for NAME; the defaults apply again."""
    subject = _subject(name, is_principal)
    registry.quotas.remove(subject)
    print_done(
        {"scope": subject.scope, "name": subject.name},
        f"removed the limits of {_subject_text(subject)}",
        as_json,
    )


def _subject(name: str, is_principal: bool) -> QuotaSubject:
    return QuotaSubject("principal" if is_principal else "namespace", name)


def _subject_text(subject: QuotaSubject) -> str:
    return f"every {subject.scope}" if subject.name == EVERY else str(subject)


def _print(found: Iterable[QuotaInfo]) -> None:
    print_table(
        ("for", "bytes", "versions", "uploads", "requests/min"),
        (
            (
                _subject_text(QuotaSubject(one.scope, one.name)),
                _used(one, format_size(one.used_bytes + one.reserved_bytes), _size(one.bytes)),
                _used(one, str(one.used_versions), _count(one.versions)),
                _used(one, str(one.open_uploads), _count(one.uploads)),
                _count(one.requests),
            )
            for one in found
        ),
        empty="no quotas are set; `adaptry quota set NAME` sets one",
    )


def _used(quota: QuotaInfo, used: str, limit: str) -> str:
    """Use and limit, such as `3 of 10`. For a quota of all names, only the limit, since use is counted for
    each name.
    """
    return limit if quota.name == EVERY else f"{used} of {limit}"


def _size(limit: int | None) -> str:
    return _NO_LIMIT if limit is None or limit >= UNLIMITED else format_size(limit)


def _count(limit: int | None) -> str:
    return _NO_LIMIT if limit is None or limit >= UNLIMITED else str(limit)
