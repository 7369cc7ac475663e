"""`docs/cli.md`, generated from the commands, so that it equals what --help prints.

python -m adaptry_cli.reference > docs/cli.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from adaptry_cli.exit_codes import MEANINGS
from adaptry_cli.main import COMMANDS, main

_HEAD = """# The command line

Generated from the commands by `python -m adaptry_cli.reference`; a test fails when it is out of date.

A *ref* selects a version: `acme/tone`, `acme/tone@3`, `acme/tone@prod`, `acme/tone@sha256:…`. An argument is
a folder only if it begins with `./`, `../`, `/` or `~`; an option for a folder or file takes any path.

Results go to stdout, messages and progress to stderr; `--json` prints the result as JSON. The registry is
`--registry`, then `ADAPTRY_URL`, then the embedded registry in the user's data folder (`ADAPTRY_HOME` moves
it). The token is `ADAPTRY_TOKEN`, then the one that `adaptry login` saved.

On a terminal, tables are fitted to its width: long values end in an ellipsis, and columns that do not fit are
omitted and named. Times are relative (`2 h ago`); `--exact-times`, or `ADAPTRY_EXACT_TIMES=1`, shows exact
ones with their zone. Green marks live and finished items, yellow those that need attention, red those that
must not be used; `NO_COLOR=1` switches colours off. Output to files and pipes has every column, full values
and exact times. `adaptry completion --help` shows how to complete commands and names in your shell.

Only `serve`, `work` and `follow` load pydantic plugins (such as logfire's). To start faster, all other
commands set `PYDANTIC_DISABLE_PLUGINS` to `__all__`, unless you set it yourself.
"""


def page() -> str:
    """The complete page `docs/cli.md`."""
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
    """The output of --help, independent of the terminal's width."""
    formatter = click.HelpFormatter(width=100)
    command.format_help(ctx, formatter)
    return formatter.getvalue().rstrip()


if __name__ == "__main__":
    sys.stdout.write(page())
