"""`adaptry restore`: make a version active again, or restore a registry from a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from adaptry.core.errors import Invalid, InvalidRef, NotFound
from adaptry.core.refs import Ref, is_folder
from adaptry.core.settings import data_folder, is_server
from adaptry.storage.connect import resolve_folder
from adaptry.storage.local import LocalRegistry
from adaptry_cli.arguments import require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import connect_to, settings_for
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import (
    format_count,
    format_size,
    json_option,
    print_answer,
    print_err,
    progress,
)
from adaptry_cli.state_change import set_state

_FORMS = (
    "A version: adaptry restore NAME@VERSION --reason TEXT, as in acme/tone@3. A backup: adaptry restore"
    " PATH, where PATH begins with / or ./, as in ./backups or ./backup.tar"
)


class _RefOrBackup(click.ParamType):  # type: ignore[type-arg]  # subscriptable since click 8.5
    """A ref, or the path of a backup. (`Any`: click's own.)"""

    name = "ref|path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Ref | Path:
        if isinstance(value, Ref | Path):
            return value
        path = Path(value).expanduser()
        if is_folder(value):
            if not path.exists():
                raise NotFound(f"no backup at {path}. {_FORMS}")
            return path
        try:
            return Ref.parse(value)
        except InvalidRef as error:
            if path.exists():
                return path
            raise InvalidRef(
                f"{value[:200]!r} is neither a version nor a file or folder here. {_FORMS}"
            ) from error


@command()
@click.argument("what", metavar="[NAME@VERSION|BACKUP]", type=_RefOrBackup(), required=False)
@click.option("--reason", help="Why the version becomes active again; stored in its history.")
@click.option(
    "--snapshot", metavar="NAME", help="Name of the backup in a backup folder. Default: the newest."
)
@click.option("--replace", is_flag=True, help="Replace an existing registry; its server must be stopped.")
@click.option("--keep-tokens", is_flag=True, help="Keep the backup's tokens valid instead of revoking them.")
@click.option(
    "--skip",
    type=WholeNumber(0, 1_000_000),
    default=1000,
    show_default=True,
    help="Version numbers to leave unused in each adapter, since pushes after the backup may have used them.",
)
@click.option("--dry-run", is_flag=True, help="Read and verify the whole backup; change nothing.")
@click.option(
    "--registry", "where", metavar="URL|DIR", help="The registry to use, or the folder to restore into."
)
@click.option(
    "--epoch-only",
    is_flag=True,
    help="Only begin a new epoch, after the database was restored with pg_restore.",
)
@json_option
def restore(
    what: Ref | Path | None,
    reason: str | None,
    snapshot: str | None,
    replace: bool,
    keep_tokens: bool,
    skip: int,
    dry_run: bool,
    epoch_only: bool,
    where: str | None,
    as_json: bool,
) -> None:
    """Make a version active again, or restore a registry from a backup.

    NAME@VERSION makes that version active again and needs a --reason; only an owner of its namespace
    may restore a revoked version.

    A path, such as ./backup or ./backup.tar, restores a backup: the whole backup is verified, then written to
    an empty folder, which becomes the registry. With --replace, it replaces an existing registry, whose
    server must be stopped.

    A restored registry begins a new epoch: workers and mirrors re-read everything, tokens are revoked, and
    alias generations are higher than any before. Versions that were recalled after the backup are quarantined
    as soon as a worker proves the recall.
    """
    is_for_backups = bool(snapshot or replace or keep_tokens or dry_run or epoch_only)
    if isinstance(what, Ref):
        require_usage(
            not is_for_backups, f"{what} is a version, and these options are for a backup. {_FORMS}"
        )
        if reason is None:
            raise click.UsageError(f"{what} is a version, which needs --reason TEXT. {_FORMS}")
        set_state(connect_to(where), what, "active", reason, None, as_json)
        return
    require_usage(reason is None, f"--reason applies to a version, not to a backup. {_FORMS}")
    if what is None or epoch_only:
        if what is not None or not epoch_only:
            raise click.UsageError(f"name a version or a backup; --epoch-only takes neither. {_FORMS}")
        _begin_epoch(where, keep_tokens, skip, as_json)
    elif dry_run:
        _verify(what, snapshot, as_json)
    else:
        _restore(what, _folder(where), snapshot, replace, keep_tokens, skip, as_json)


def _verify(backup: Path, snapshot: str | None, as_json: bool) -> None:
    from adaptry.storage.backup import check

    with progress() as bar:
        index = check(backup, snapshot, bar)
    text = (
        f"{backup} is complete and undamaged: {format_count(index.files, 'file')},"
        f" {format_size(index.total)}, taken {index.created_at:%F %T} UTC"
    )
    print_answer(index, text, as_json)


def _restore(
    backup: Path,
    folder: Path,
    snapshot: str | None,
    replace: bool,
    keep_tokens: bool,
    skip: int,
    as_json: bool,
) -> None:
    from adaptry.storage.backup import restore

    with progress() as bar:
        restored = restore(
            backup,
            folder,
            snapshot=snapshot,
            replace=replace,
            keep_tokens=keep_tokens,
            skip=skip,
            progress=bar,
        )
    for version in restored.held_back:
        print_err(f"warning: {version} was withdrawn after the backup was taken; it is quarantined now")
    if not keep_tokens:
        print_err(
            f"all tokens are revoked; `adaptry serve --data {folder}` writes a new administrator's token to"
            f" {folder}/admin-token"
        )
    found = {
        "folder": str(folder),
        "epoch": restored.epoch,
        "held_back": list(restored.held_back),
        **restored.index.model_dump(mode="json", exclude={"epoch"}),
    }
    when = f"{restored.index.created_at:%F %T} UTC"
    print_answer(found, f"restored {folder} as it was at {when}; epoch {restored.epoch}", as_json)


def _begin_epoch(where: str | None, keep_tokens: bool, skip: int, as_json: bool) -> None:
    from adaptry.storage.backup import begin_epoch

    registry = connect_to(where)
    require_usage(
        isinstance(registry, LocalRegistry),
        "begin an epoch on the server's own machine, with the server stopped:"
        " adaptry restore --epoch-only --registry DIR",
    )
    assert isinstance(registry, LocalRegistry)
    epoch = begin_epoch(registry, keep_tokens=keep_tokens, skip=skip)
    print_answer({"epoch": epoch}, f"began epoch {epoch}", as_json)


def _folder(where: str | None) -> Path:
    settings = settings_for(where)
    if settings.registry is None:
        return data_folder()
    if is_server(settings.registry):
        raise Invalid("restore a backup on the server's own machine: adaptry restore BACKUP --registry DIR")
    return resolve_folder(settings.registry)
