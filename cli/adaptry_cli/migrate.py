"""`adaptry migrate`: update the schema of a registry's catalog, or move the catalog into PostgreSQL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from adaptry.core.errors import Invalid
from adaptry.storage.local import LocalRegistry
from adaptry_cli.arguments import require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import connect_to
from adaptry_cli.exit_codes import NO
from adaptry_cli.output import format_count, json_option, print_err, print_json, print_out, progress

_SQLITE = "sqlite:"


class _Folder(click.ParamType):  # type: ignore[type-arg]  # subscriptable since click 8.5
    """`sqlite:DIR`. (`Any`: click's own.)"""

    name = "sqlite:dir"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if isinstance(value, Path):
            return value
        if not value.startswith(_SQLITE) or value == _SQLITE:
            shown = re.sub(r"//[^/@]*@", "//…@", value)  # it may be an address with a password
            raise Invalid(f"--from takes a registry's folder as sqlite:DIR, not {shown[:200]!r}")
        return Path(value.removeprefix(_SQLITE)).expanduser()


@command()
@click.option("--from", "folder", metavar="sqlite:DIR", type=_Folder(), help="The registry to move.")
@click.option("--to", "url", metavar="URL", help="An empty database: postgresql://USER@HOST/DATABASE.")
@json_option
@click.pass_context
def migrate(ctx: click.Context, folder: Path | None, url: str | None, as_json: bool) -> None:
    """Update the schema of a registry's catalog, or move the catalog into PostgreSQL.

    Without --from and --to, creates the registry of ADAPTRY_CATALOG (or of the folder) if it is missing, and
    updates its schema. A deployment does this once, before it starts its servers.

    With both, copies the catalog of a folder into an empty database, reads every row back, and checks that
    every file exists; files stay where they are. From then on, the folder uses the database, and the old
    catalog is read-only. Stop the server first; it must be started again before it can change anything.
    """
    if folder is None and url is None:
        _migrate_schema(as_json)
        return
    if folder is None or url is None:
        raise click.UsageError("pass --from and --to together")
    from adaptry.storage.maintenance.move_to_postgres import move_catalog

    with progress() as bars:
        moved = move_catalog(folder, url, bars)
    problems = [{"where": problem.where, "reason": problem.reason} for problem in moved.problems]
    if as_json:
        print_json({"rows": dict(moved.rows), "problems": problems})
    else:
        for problem in moved.problems:
            print_err(f"warning: {problem.where}: {problem.reason}")
        rows = sum(moved.rows.values())
        adapters, versions = moved.rows["adapters"], moved.rows["versions"]
        print_out(
            f"moved {format_count(rows, 'row')}: {format_count(adapters, 'name')},"
            f" {format_count(versions, 'version')}"
        )
    if problems:
        ctx.exit(NO)


def _migrate_schema(as_json: bool) -> None:
    registry = connect_to(None, create_missing=True)
    require_usage(
        isinstance(registry, LocalRegistry),
        "a server's catalog is migrated on the server's machine: unset ADAPTRY_URL, and set"
        " ADAPTRY_CATALOG or"
        " ADAPTRY_HOME",
    )
    assert isinstance(registry, LocalRegistry)
    schema = registry.catalog.schema()
    if as_json:
        print_json({"schema": schema})
    else:
        print_out(f"the catalog has schema {schema}")
