"""`adaptry admin`: recover access to a registry, or replace its audit key, on its own machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adaptry_cli.command import group
from adaptry_cli.connection import folder_of
from adaptry_cli.output import json_option, print_done, print_err, print_json, print_out
from adaptry_cli.storage_options import catalog_option, data_option
from adaptry_cli.times import format_when

if TYPE_CHECKING:
    from adaptry.storage.local import LocalRegistry


@group()
def admin() -> None:
    """Recover access to a registry, or replace its audit key, on its own machine."""


@admin.command()
@click.argument("user")
@click.option("--namespace", metavar="NAME", help="Make USER an owner of this namespace only.")
@data_option
@catalog_option
@json_option
def recover(user: str, namespace: str | None, data: Path | None, catalog: str | None, as_json: bool) -> None:
    """Make USER an administrator, or the owner of a namespace, and print a token that is valid for a day.

    Use this when the registry has lost its last administrator, or a namespace its last owner. USER is created
    if missing, and enabled if disabled. The events and the audit log of the registry record it.
    """
    from adaptry.storage.maintenance.recovery import recover_access

    registry = _open(data, catalog, "recover access on the registry's own machine, in its folder")
    created = recover_access(registry, user, namespace)
    if as_json:
        print_json(created)
        return
    print_out(created.secret)
    role = f"an owner of {namespace}" if namespace else "an administrator"
    assert created.expires_at is not None
    print_err(f"{user} is {role}; the token is valid until {format_when(created.expires_at)}")


@admin.command("replace-audit-key")
@data_option
@catalog_option
@json_option
def replace_audit_key(data: Path | None, catalog: str | None, as_json: bool) -> None:
    """Replace the audit log's signing key, if it was lost.

    The next process that seals the log signs with its own key, and creates one if it has none. The log
    records the replacement. Old checkpoints stay valid under the old key; outside auditors need the new
    public key.
    """
    from adaptry.storage.maintenance.recovery import replace_log_key

    registry = _open(data, catalog, "replace the key on the registry's own machine, in its folder")
    replace_log_key(registry)
    print_done(
        {"replaced": True}, "the next process that seals the audit log signs with its own key", as_json
    )


def _open(data: Path | None, catalog: str | None, why: str) -> LocalRegistry:
    from adaptry.core.errors import NotFound
    from adaptry.storage.connect import is_registry, open_local

    folder = folder_of(data, why)
    if not is_registry(folder):
        raise NotFound(f"no registry in {folder}; `adaptry serve --data {folder}` creates one and serves it")
    registry = open_local(folder, catalog=catalog)
    click.get_current_context().call_on_close(registry.close)
    return registry
