"""What commands print: the answer on stdout, as text or JSON; the story on stderr, bars on a terminal.

Text that others wrote is shown with its control characters spelled out, so that no description can move a
cursor.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pydantic import BaseModel

    from adaptry.core.progress import Progress
    from adaptry.registry.records import Page

Command = TypeVar("Command", bound=Callable[..., object])
Item = TypeVar("Item")

_PAGE = 200


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")(command)


def limit_option(command: Command) -> Command:
    return click.option(
        "--limit",
        type=click.IntRange(1),
        default=50,
        show_default=True,
        help="Maximum number of entries to show.",
    )(command)


def print_out(text: str) -> None:
    """One line of the answer."""
    click.echo(escape_controls(text))


def print_lines(texts: Iterable[str]) -> None:
    """Several lines of the answer."""
    for text in texts:
        print_out(text)


def print_err(text: str) -> None:
    """One line of the story."""
    click.echo(escape_controls(text), err=True)


def print_answer(value: BaseModel | dict[str, Any], text: str, as_json: bool) -> None:
    """The answer as JSON or as one line. (`Any`: JSON.)"""
    if as_json:
        print_json(value)
    else:
        print_out(text)


def print_json(value: BaseModel | Sequence[BaseModel] | dict[str, Any] | list[Any]) -> None:
    """The answer as JSON. (`Any`: JSON.)"""
    click.echo(json.dumps(_plain_json(value), indent=2, ensure_ascii=False))


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Bars on stderr while the block runs, if a person is watching; else nothing."""
    from adaptry.core.progress import no_progress

    if not sys.stderr.isatty():
        yield no_progress
        return
    from rich import progress as bars
    from rich.console import Console

    with bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.DownloadColumn(binary_units=True),
        bars.TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as shown:
        tasks: dict[str, bars.TaskID] = {}

        def tell_bar(text: str, done: int, total: int) -> None:
            task = tasks.get(text)
            if task is None:
                task = tasks[text] = shown.add_task(escape_controls(text), total=total)
            shown.update(task, completed=done, total=total, visible=done < total)

        yield tell_bar


def collect_pages(fetch: Callable[[str | None, int], Page[Item]], limit: int) -> list[Item]:
    """The first `limit` items of a listing, page by page; tells when there are more."""
    items: list[Item] = []
    cursor: str | None = None
    while len(items) < limit:
        page = fetch(cursor, min(_PAGE, limit - len(items)))
        items += page.items
        cursor = page.next
        if cursor is None:
            return items
    print_err(f"the first {limit}; there are more (--limit)")
    return items


def escape_controls(text: str) -> str:
    """`text` with whatever could steer a terminal spelled out."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def format_size(count: int) -> str:
    """`4.2 MB`: bytes as people read them."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError


def format_count(count: int, noun: str) -> str:
    """`1 version`, `2 versions`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_number(value: float) -> str:
    """A metric as people read it: six digits that matter."""
    return f"{value:.6g}"


def _plain_json(value: object) -> Any:
    """(`Any`: JSON.)"""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain_json(item) for item in value]
    return value
