"""Commands and groups as the whole command line has them: help with examples and a page, suggestions for
mistyped commands, and a sentence when Ctrl-C stops one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from adaptry_cli.streams import encodable


class Command(click.Command):
    """A command. Its examples and its page are in `examples.py`, by its path."""

    def get_help(self, ctx: click.Context) -> str:
        return encodable(super().get_help(ctx), sys.stdout)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        _format_examples(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        """(`Any`: click's own.)"""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            from adaptry_cli.exit_codes import INTERRUPTED
            from adaptry_cli.interruption import interruption_text
            from adaptry_cli.output import print_err

            print_err(interruption_text(command_path(ctx), ctx.params))
            ctx.exit(INTERRUPTED)


class Group(click.Group):
    """A group of such commands. `former` has former names of commands, which still work, each with the
    present one; help omits them. (`Any`: click's options.)
    """

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, former: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._former = former or {}

    def get_help(self, ctx: click.Context) -> str:
        return encodable(super().get_help(ctx), sys.stdout)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists each command with its whole first sentence, wrapped; click's own list would cut it."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(500)) for name, each in commands if each])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        _format_examples(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, *rest = args
        name = self._former.get(name, name)
        is_unknown = not name.startswith("-") and self.get_command(ctx, name) is None
        if is_unknown and not ctx.resilient_parsing:
            from adaptry_cli.synonyms import suggested_command

            hint = suggested_command(name, self.list_commands(ctx))
            raise click.UsageError(f"no command {name[:80]!r}{hint}", ctx)
        return super().resolve_command(ctx, [name, *rest])


def command(name: str | None = None, cls: type[Command] = Command, **options: Any) -> Callable[..., Command]:
    """Like `click.command`. (`Any`: click's options.)"""
    return click.command(name, cls=cls, **options)


def group(name: str | None = None, **options: Any) -> Callable[..., Group]:
    """Like `click.group`. (`Any`: click's options.)"""
    return click.group(name, cls=Group, **options)


def command_path(ctx: click.Context) -> str:
    """A command's name without the program's, such as `alias set`."""
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, ctx.info_name or "")
        ctx = ctx.parent
    return " ".join(words)


def _format_examples(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    from adaptry_cli.examples import EXAMPLES
    from adaptry_cli.help_pages import page_of

    path = command_path(ctx)
    if path in EXAMPLES:
        with formatter.section("Examples"):
            for example in EXAMPLES[path]:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")
    if path:
        formatter.write_paragraph()
        formatter.write(f"Documentation: {page_of(path)}\n")
