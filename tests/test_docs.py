"""Documentation: links have targets, and commands that are shown exist with the options shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from adaptry_cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "changes").glob("*.md"),
    *ROOT.glob("examples/*/*.md"),
]

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands(page: Path) -> Iterator[list[str]]:
    """Each `adaptry …` line of a page's shell blocks, split as a shell would: the words up to the first pipe,
    without `--registry`.
    """
    for language, block in FENCE.findall(page.read_text()):
        if language not in ("sh", "console"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[:1] == ["adaptry"]:
                start = 3 if words[1:2] == ["--registry"] else 1
                yield words[start : words.index("|") if "|" in words else None]


def misfit(words: list[str]) -> str | None:
    """The error in a command line: a command or an option that does not exist, or an extra word."""
    command: click.Command = main
    context = click.Context(main, **main.context_settings)
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest.pop(0))
        if found is None:
            return "no such command"
        command = found
    try:
        _, extra, _ = command.make_parser(
            click.Context(command, help_option_names=["-h", "--help"])
        ).parse_args(rest)
    except click.UsageError as error:
        return error.format_message()
    return f"unexpected: {extra}" if extra else None


def anchors(page: Path) -> set[str]:
    """The places in a page to which a link can point: its headings, in GitHub's form."""
    text = FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path, link: str) -> bool:
    target, _, anchor = link.partition("#")
    place = (page.parent / target).resolve() if target else page
    return not place.exists() or bool(anchor and place.suffix == ".md" and anchor not in anchors(place))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_existing_targets(page: Path) -> None:
    links = [link for link in LINK.findall(FENCE.sub("", page.read_text())) if "://" not in link]
    assert [link for link in links if broken(page, link)] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_shown_exists(page: Path) -> None:
    shown = list(commands(page))
    assert [(" ".join(words), problem) for words in shown if (problem := misfit(words))] == []


def test_the_readme_shows_the_daily_commands() -> None:
    shown = {words[0] for words in commands(ROOT / "README.md") if words}
    assert shown >= {"push", "pull", "search", "check", "base", "alias", "serve", "demo"}


def test_every_decision_has_context_and_consequences() -> None:
    for record in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
        text = record.read_text()
        assert re.match(r"# \d+\. \S", text), record.name
        assert len(text.splitlines()) <= 25, record.name
        assert "**Context.**" in text and "**Decision.**" in text and "**Consequences.**" in text, record.name


def test_decisions_are_numbered_once_and_all_listed() -> None:
    names = (path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    records = sorted(names, key=lambda name: int(name.split("-")[0]))
    listed = (ROOT / "docs" / "decisions" / "README.md").read_text()
    assert [int(name.split("-")[0]) for name in records] == list(range(1, len(records) + 1))
    assert [name for name in records if name not in listed] == []


def test_every_change_fragment_is_of_a_known_kind() -> None:
    fragments = [path for path in (ROOT / "changes").iterdir() if path.name != "README.md"]
    assert [
        path.name
        for path in fragments
        if not re.fullmatch(r"[a-z0-9-]+\.(added|changed|fixed)\.md", path.name)
    ] == []


@pytest.mark.parametrize("page", [page for page in PAGES if "::test_" in page.read_text()], ids=page_id)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", page.read_text())
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^(def|class) {test}\(", (ROOT / file).read_text(), re.MULTILINE)
    ]
    assert missing == []
