"""`docs/cli.md`, made from the commands themselves, so that what is printed by --help is what is documented.

python -m adaptry_cli.reference > docs/cli.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from adaptry_cli.exit_codes import MEANINGS
from adaptry_cli.main import COMMANDS, main

_HEAD = """# The command line

Made from the commands by `python -m adaptry_cli.reference`; a test says when it is out of date.

A command takes a *ref* (`acme/tone`, `acme/tone@3`, `acme/tone@prod`, `acme/tone@sha256:…`). Where it takes a
ref or a folder, only `./`, `../`, `/` and `~` mean a folder. stdout is the answer, stderr the story; `--json`
prints the answer as JSON. The registry is `--registry`, else `ADAPTRY_URL`, else the embedded one in the
user's data folder (`ADAPTRY_HOME` moves it); the token is `ADAPTRY_TOKEN`, else what `adaptry login` kept.
"""


def page() -> str:
    """The whole page."""
    root = click.Context(main, info_name="adaptry", help_option_names=["-h", "--help"])
    parts = [_HEAD, "## Exit codes\n", _exit_codes()]
    for section, commands in COMMANDS.items():
        parts.append(f"## {section}\n")
        for name in commands:
            command = main.get_command(root, name)
            assert command is not None
            parts += _described(command, click.Context(command, parent=root, info_name=name))
    return "\n".join(parts)


def _exit_codes() -> str:
    rows = [f"| {code} | {meaning} |" for code, meaning in MEANINGS.items()]
    return "\n".join(["| code | meaning |", "|---|---|", *rows, ""])


def _described(command: click.Command, ctx: click.Context) -> Iterator[str]:
    yield f"### {ctx.command_path}\n"
    yield f"```text\n{_help(command, ctx)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            assert inner is not None
            yield from _described(inner, click.Context(inner, parent=ctx, info_name=name))


def _help(command: click.Command, ctx: click.Context) -> str:
    """As --help prints it, whatever the width of the terminal that asks."""
    formatter = click.HelpFormatter(width=100)
    command.format_help(ctx, formatter)
    return formatter.getvalue().rstrip()


if __name__ == "__main__":
    sys.stdout.write(page())
