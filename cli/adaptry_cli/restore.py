"""`adaptry restore`: a version is active again; or a registry is what it was when a backup was taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from adaptry.errors import Invalid, InvalidRef
from adaptry.local import LocalRegistry
from adaptry.opening import folder_named
from adaptry.refs import Ref, is_folder
from adaptry.settings import data_folder, is_server
from adaptry_cli.arguments import require
from adaptry_cli.connection import connect_to, settings_for
from adaptry_cli.out import answer, counted, json_option, progress, say_json, size, tell
from adaptry_cli.states import change_to


class _What(click.ParamType):  # type: ignore[type-arg]  # subscriptable since click 8.5
    """A ref, or the path of a backup. (`Any`: click's own.)"""

    name = "ref|path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Ref | Path:
        if isinstance(value, Ref | Path):
            return value
        if is_folder(value):
            return Path(value).expanduser()
        try:
            return Ref.parse(value)
        except InvalidRef:
            if Path(value).exists():
                return Path(value)
            raise


@click.command()
@click.argument("what", metavar="[NAME@VERSION|BACKUP]", type=_What(), required=False)
@click.option("--reason", help="Why the version is active again; it is kept.")
@click.option("--snapshot", help="Which backup in a folder; the newest unless given.")
@click.option("--replace", is_flag=True, help="Replace the registry that is there.")
@click.option("--keep-tokens", is_flag=True, help="Leave tokens valid that were valid in the backup.")
@click.option(
    "--skip",
    type=click.IntRange(0, 1_000_000),
    default=1000,
    show_default=True,
    help="Version numbers to leave free in each adapter: pushes after the backup may have used them.",
)
@click.option("--dry-run", is_flag=True, help="Read and verify the whole backup; change nothing.")
@click.option(
    "--registry", "where", metavar="URL|DIR", help="The registry to use, or the folder to restore into."
)
@click.option(
    "--epoch-only",
    is_flag=True,
    help="Begin a new epoch in a registry whose database was restored by pg_restore.",
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

    NAME@VERSION is a version, and takes a --reason; what was revoked takes an administrator. A path, as in ./backup or ./backup.tar,
    is a backup: it is verified whole, then becomes the registry in an empty folder, or with --replace in place of the one that is
    there, whose server must be stopped.

    A restored registry begins a new epoch: workers and mirrors look at everything anew, tokens are revoked, alias generations are
    higher than any before, and what workers can prove to have been recalled is held back.
    """
    if isinstance(what, Ref):
        if reason is None:
            raise click.UsageError("a version is restored for a --reason")
        change_to(connect_to(where), what, "active", reason, None, as_json)
        return
    from adaptry.backup import check
    from adaptry.backup import restore as restore_backup

    if what is None or epoch_only:
        if what is not None or not epoch_only:
            raise click.UsageError("name a version, or a backup; --epoch-only takes neither")
        _begin_epoch(where, keep_tokens, skip, as_json)
        return

    with progress() as bar:
        if dry_run:
            index = check(what, snapshot, bar)
            text = f"{what} is whole: {counted(index.files, 'file')}, {size(index.total)}, taken {index.created_at:%F %T} UTC"
            answer(index, text, as_json)
            return
        folder = _folder(where)
        restored = restore_backup(
            what, folder, snapshot=snapshot, replace=replace, keep_tokens=keep_tokens, skip=skip, progress=bar
        )
    for version in restored.held_back:
        tell(f"warns: {version} was withdrawn after the backup was taken; it is quarantined now")
    if not keep_tokens:
        tell(
            f"all tokens are revoked; `adaptry serve --data {folder}` makes a new administrator's token, in {folder}/admin-token"
        )
    if as_json:
        say_json(
            {
                "folder": str(folder),
                "epoch": restored.epoch,
                "held_back": list(restored.held_back),
                **restored.index.model_dump(mode="json", exclude={"epoch"}),
            }
        )
    else:
        answer(
            {},
            f"restored {folder} as it was at {restored.index.created_at:%F %T} UTC; epoch {restored.epoch}",
            False,
        )


def _begin_epoch(where: str | None, keep_tokens: bool, skip: int, as_json: bool) -> None:
    from adaptry.backup import begin_epoch

    registry = connect_to(where)
    require(
        isinstance(registry, LocalRegistry),
        "an epoch begins on the server's own machine, while no server runs: adaptry restore --epoch-only --registry DIR",
    )
    assert isinstance(registry, LocalRegistry)
    epoch = begin_epoch(registry, keep_tokens=keep_tokens, skip=skip)
    answer({"epoch": epoch}, f"epoch {epoch} begins", as_json)


def _folder(where: str | None) -> Path:
    settings = settings_for(where)
    if settings.registry is None:
        return data_folder()
    if is_server(settings.registry):
        raise Invalid(
            "a backup is restored on the server's own machine: adaptry restore BACKUP --registry DIR"
        )
    return folder_named(settings.registry)
