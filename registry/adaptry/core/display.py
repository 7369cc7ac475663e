"""The display of values: one line in a terminal, a small table in a notebook.

Names, metrics, cards and findings are other people's text. Control characters are escaped, so that no text
can move a cursor or reverse a line; in a notebook, everything is escaped as HTML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

_MAX_LINE = 160
_MAX_CELL = 300


def escape_controls(text: str) -> str:
    """`text` with control characters, which could manipulate a terminal, escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def escape_lines(text: str) -> str:
    """`text` as lines without control characters; lines after the first are indented."""
    if text.isprintable():
        return text
    return "\n  ".join(escape_controls(line.replace("\t", "  ")) for line in text.rstrip("\n").split("\n"))


def format_size(count: int) -> str:
    """`4.2 MB`: bytes as people read them."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError


def format_count(count: int, noun: str) -> str:
    """`1 version`, `2 versions`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_number(value: float) -> str:
    """A metric as people read it: six significant digits."""
    return f"{value:.6g}"


def format_decimal(value: float) -> str:
    """A distance, a cosine or a ratio with four decimals, so that a column of them is aligned."""
    if 0 < value < 0.00005:
        return "< 0.0001"
    return f"{round(value, 4) + 0.0:.4f}"  # + 0.0: no minus before a zero


def format_share(value: float) -> str:
    """`84.9 %`. `100 %` and `0 %` are shown only for exactly all and exactly nothing."""
    percent = 100 * value
    if 0 < percent < 0.1:
        text = f"{percent:.2g}"
    elif 99.9 < percent < 100:
        text = f"{percent:.4f}"
    else:
        text = f"{percent:.1f}"
    if percent < 100 <= float(text):
        return "almost 100 %"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def format_metrics(metrics: Mapping[str, float]) -> str:
    """`accuracy 0.91, loss 1.2`."""
    return ", ".join(f"{name} {format_number(value)}" for name, value in metrics.items())


def shorten(text: str, longest: int = _MAX_CELL) -> str:
    """`text` on one line of at most `longest` characters, with an ellipsis where it was cut."""
    text = escape_controls(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def short_repr(value: object, *parts: str | None) -> str:
    """`<VersionInfo acme/tone@1, lora, rank 8>`: the class, and the fields that distinguish values. Empty
    parts are left out.
    """
    inside = ", ".join(part for part in parts if part)
    return f"<{shorten(f'{type(value).__name__} {inside}'.rstrip(), _MAX_LINE)}>"


def table_text(rows: Sequence[Sequence[str]], maximum: int = 10) -> str:
    """Rows as aligned lines, without empty columns. If there are more than `maximum`, only the first rows,
    and how many are left out.
    """
    columns = [[shorten(cell, 60) for cell in column] for column in zip(*rows[:maximum], strict=True)]
    aligned = [[cell.ljust(max(map(len, column))) for cell in column] for column in columns if any(column)]
    lines = ["  " + "  ".join(row).rstrip() for row in zip(*aligned, strict=True)]
    return "\n".join([*lines, *([f"  … and {len(rows) - maximum:,} more"] if len(rows) > maximum else [])])


def html_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Iterable[str] = (),
    maximum: int = 50,
) -> str:
    """A table for a notebook; columns that are empty in every row are left out."""
    shown = [number for number in range(len(columns)) if any(row[number] for row in rows)]
    head = "".join(f"<th>{html_text(columns[number])}</th>" for number in shown)
    body = "".join(
        f"<tr>{''.join(f'<td>{html_text(row[number])}</td>' for number in shown)}</tr>"
        for row in rows[:maximum]
    )
    left = [f"… and {len(rows) - maximum:,} more"] if len(rows) > maximum else []
    return f"<div>{html_title(title)}{_table(head, body)}{html_notes([*left, *notes])}</div>"


def html_facts(title: str, facts: Iterable[tuple[str, str]], notes: Iterable[str] = ()) -> str:
    """Names and values for a notebook, one per line; empty values are left out."""
    body = "".join(
        f"<tr><th style='text-align:left'>{html_text(name)}</th><td>{html_text(value)}</td></tr>"
        for name, value in facts
        if value
    )
    return f"<div>{html_title(title)}{_table('', body)}{html_notes(notes)}</div>"


def html_title(text: str) -> str:
    return f"<strong>{html_text(text)}</strong>"


def html_notes(notes: Iterable[str]) -> str:
    return "".join(f"<div><small>{html_text(note)}</small></div>" for note in notes)


def html_text(text: str) -> str:
    """`text` escaped for HTML."""
    import html  # has a table of 2,000 names, which only notebooks need

    return html.escape(shorten(text))


def _table(head: str, body: str) -> str:
    header = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f"<table>{header}<tbody>{body}</tbody></table>" if body else ""
