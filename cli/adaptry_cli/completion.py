"""`adaptry completion`: the script that a shell sources to complete commands, options and names."""

from __future__ import annotations

import sys

import click
from click.shell_completion import FishComplete, ShellComplete, ZshComplete, add_completion_class

from adaptry_cli.bash_completion import LineBashComplete
from adaptry_cli.command import command
from adaptry_cli.output import print_err

_INSTALLED_BY = {
    "bash": 'add to ~/.bashrc:  eval "$(adaptry completion bash)"',
    "zsh": 'add to ~/.zshrc:  eval "$(adaptry completion zsh)"',
    "fish": "run:  adaptry completion fish > ~/.config/fish/completions/adaptry.fish",
}
_KINDS: dict[str, type[ShellComplete]] = {"bash": LineBashComplete, "zsh": ZshComplete, "fish": FishComplete}


@command()
@click.argument("shell", type=click.Choice(sorted(_INSTALLED_BY)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands in your shell.

    It completes commands and options, and names in the registry that the command would use (even on a
    server): adapters, versions and aliases after an @, bases, methods and engines.

    \b
    To install it:
      bash  add to ~/.bashrc:  eval "$(adaptry completion bash)"
      zsh   add to ~/.zshrc:  eval "$(adaptry completion zsh)"
      fish  run:  adaptry completion fish > ~/.config/fish/completions/adaptry.fish
    """
    root = ctx.find_root().command
    click.echo(_KINDS[shell](root, {}, "adaptry", "_ADAPTRY_COMPLETE").source(), file=sys.stdout)
    if sys.stdout.isatty():
        print_err(f"to install this script, {_INSTALLED_BY[shell]}")


def register_completions() -> None:
    """Registers our completion classes for shells with click."""
    for shell, kind in _KINDS.items():
        add_completion_class(kind, shell)
