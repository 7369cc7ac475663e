"""Output of commands: results on stdout, as text or JSON; messages on stderr, progress bars on a terminal.

Control characters in users' texts are escaped, so that no description can move a cursor. In a message of
several lines, later lines are indented, so that none looks like another message.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from adaptry.core.display import escape_controls as escape_controls
from adaptry.core.display import escape_lines as escape_lines
from adaptry.core.display import format_count as format_count
from adaptry.core.display import format_number as format_number
from adaptry.core.display import format_share as format_share
from adaptry.core.display import format_size as format_size
from adaptry_cli.streams import is_utf

if TYPE_CHECKING:
    from pydantic import BaseModel

    from adaptry.core.progress import Progress
    from adaptry.core.value import FrozenValue

Command = TypeVar("Command", bound=Callable[..., object])
Item = TypeVar("Item", covariant=True)

_PAGE = 200


class ListingPage(Protocol[Item]):
    """A page of a listing, of records or of plain values."""

    @property
    def items(self) -> Sequence[Item]: ...
    @property
    def next(self) -> str | None: ...


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def print_out(text: str) -> None:
    """Prints a line of the result."""
    click.echo(escape_lines(text), file=sys.stdout)


def print_lines(texts: Iterable[str]) -> None:
    """Prints several lines of the result."""
    for text in texts:
        print_out(text)


def print_err(text: str) -> None:
    """Prints a message for the person at the terminal."""
    click.echo(escape_lines(text), file=sys.stderr)


def print_done(value: dict[str, Any], text: str, as_json: bool) -> None:
    """Reports a completed action: JSON on stdout, or a message on stderr. (`Any`: JSON.)"""
    if as_json:
        print_json(value)
    else:
        print_err(text)


def print_answer(value: BaseModel | FrozenValue | dict[str, Any], text: str, as_json: bool) -> None:
    """Prints the result as JSON or as one line. (`Any`: JSON.)"""
    if as_json:
        print_json(value)
    else:
        print_out(text)


def print_json(value: BaseModel | FrozenValue | Sequence[BaseModel] | dict[str, Any] | list[Any]) -> None:
    """Prints the result as JSON. (`Any`: JSON.)"""
    text = json.dumps(_plain_json(value), indent=2, ensure_ascii=not is_utf(sys.stdout))
    click.echo(text, file=sys.stdout)


def print_json_line(value: BaseModel | dict[str, Any]) -> None:
    """Prints one object per line and flushes, for endless results. (`Any`: JSON.)"""
    click.echo(json.dumps(_plain_json(value), ensure_ascii=not is_utf(sys.stdout)), file=sys.stdout)
    sys.stdout.flush()


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Shows progress bars on stderr while the block runs, if stderr is a terminal; otherwise nothing."""
    from adaptry.core.progress import no_progress

    if not sys.stderr.isatty():
        yield no_progress
        return
    from adaptry.facade.terminal_bars import terminal_bars

    with terminal_bars() as bars:
        yield bars


def collect_pages(fetch: Callable[[str | None, int], ListingPage[Item]], limit: int) -> list[Item]:
    """The first `limit` items of a listing, page by page, with a message if there are more."""
    items: list[Item] = []
    cursor: str | None = None
    while len(items) < limit:
        page = fetch(cursor, min(_PAGE, limit - len(items)))
        items += page.items
        cursor = page.next
        if cursor is None:
            return items
    print_err(f"showing the first {limit}; --limit shows more")
    return items


def _plain_json(value: object) -> Any:
    """(`Any`: JSON.)"""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain_json(item) for item in value]
    return value
