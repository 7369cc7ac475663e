"""Commands that messages and pages mention exist and have the options shown."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click

from adaptry.core.refs import AdapterName
from adaptry_api.pages.snippets import snippets_for
from adaptry_cli.main import main

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"\badaptry ([a-z-]+)(?: ([a-z-]+)\b)?([^`;,()\n]*)")
OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")


def texts(tree: ast.AST) -> Iterator[str]:
    """The strings of a module. Each value inside an f-string counts as a word."""
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value


@cache
def command(first: str, second: str) -> tuple[click.Command | None, bool]:
    """The command, and whether the second word is part of its name."""
    ctx = context(main)
    found = main.get_command(ctx, first)
    if isinstance(found, click.Group) and second:
        return found.get_command(ctx, second), True
    return found, False


def context(command: click.Command) -> click.Context:
    """A context with the settings of `main`: a command keeps the help option of its first context."""
    return click.Context(command, **main.context_settings)


def fault(first: str, second: str, rest: str) -> str | None:
    found, has_both = command(first, second)
    if found is None:
        return f"no such command: {first} {second}"
    known = {name for param in found.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
    unknown = sorted(set(OPTION.findall(rest)) - known)
    return f"{first} {second if has_both else ''} has no {', '.join(unknown)}" if unknown else None


def test_messages_name_commands_and_options_that_exist() -> None:
    commands = set(main.list_commands(context(main)))
    named = [
        (path.relative_to(ROOT), match)
        for place in ("registry/adaptry", "api/adaptry_api", "cli/adaptry_cli")
        for path in (ROOT / place).rglob("*.py")
        for text in texts(ast.parse(path.read_text()))
        for match in NAMED.finditer(text)
        if match[1] in commands
    ]

    wrong = [f"{path}: {why}: {m[0]}" for path, m in named if (why := fault(m[1], m[2] or "", m[3]))]

    assert len(named) > 200
    assert wrong == []


def test_the_snippets_of_a_page_are_valid_commands() -> None:
    snippets = snippets_for("https://registry.example", AdapterName.parse("acme/tone"), "prod", "org/base")
    lines = [line for one in snippets for line in one.code.splitlines() if line.startswith("adaptry ")]

    for line in lines:
        _, first, *words = shlex.split(line)
        found = main.get_command(context(main), first)
        assert found is not None
        _, left, _ = found.make_parser(context(found)).parse_args(words)
        assert left == [], line

    assert len(lines) == 3
