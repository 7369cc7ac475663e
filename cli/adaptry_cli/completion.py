"""`adaptry completion`: the script a shell sources to complete commands, and the names to complete with."""

from __future__ import annotations

import sys

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

_SOURCED_FROM = {
    "bash": 'add to ~/.bashrc:  eval "$(adaptry completion bash)"',
    "zsh": 'add to ~/.zshrc:  eval "$(adaptry completion zsh)"',
    "fish": "save as ~/.config/fish/completions/adaptry.fish",
}
_KINDS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
_MANY = 50


@click.command()
@click.argument("shell", type=click.Choice(sorted(_SOURCED_FROM)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands in your shell.

    Commands and options are completed, and the names of adapters in an embedded registry.
    """
    root = ctx.find_root().command
    click.echo(_KINDS[shell](root, {}, "adaptry", "_ADAPTRY_COMPLETE").source())
    if sys.stdout.isatty():
        click.echo(_SOURCED_FROM[shell], err=True)


def complete_names(beginning: str) -> list[str]:
    """Adapters of an embedded registry whose names begin so; a server is not asked at every key."""
    from adaptry.core.errors import AdaptryError
    from adaptry.core.settings import is_server
    from adaptry_cli.connection import connect_to, settings_for

    if is_server(settings_for(None).registry or ""):
        return []
    try:
        page = connect_to(None).adapters.list(None, None, 200)
    except AdaptryError:
        return []
    return [str(info.name) for info in page.items if str(info.name).startswith(beginning)][:_MANY]
