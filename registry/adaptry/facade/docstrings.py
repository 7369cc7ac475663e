"""A docstring as Markdown: paragraphs, examples, and lists of arguments and errors."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator

_SECTION = re.compile(r"(Args|Returns|Raises):")
_TITLES = {"Args": "Arguments", "Returns": "Returns", "Raises": "Raises"}
_ITEM = re.compile(r"([A-Za-z_][\w, ]*): (.*)", re.DOTALL)


def docstring_markdown(value: object) -> str:
    """The docstring of a function or class. Raises `ValueError` if it has none."""
    text = inspect.getdoc(value)
    if not text:
        raise ValueError(f"{value} has no docstring")
    return "\n\n".join(_blocks(text))


def _blocks(text: str) -> Iterator[str]:
    """The parts of a docstring: sections with their bodies, and the text between them."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        if match := _SECTION.fullmatch(lines[at]):
            end = _end_of_body(lines, at + 1)
            yield _section(match[1], textwrap.dedent("\n".join(lines[at + 1 : end])).strip())
            at = end
            continue
        end = next((n for n in range(at, len(lines)) if _SECTION.fullmatch(lines[n])), len(lines))
        yield from _paragraphs("\n".join(lines[at:end]))
        at = end


def _end_of_body(lines: list[str], at: int) -> int:
    """The first line after a section: one that is neither empty nor indented."""
    return next((n for n in range(at, len(lines)) if lines[n] and not lines[n].startswith(" ")), len(lines))


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs on one line each; indented ones are examples of code."""
    for block in re.split(r"\n(?=    )(?<=\n\n)|\n\n(?! )", text):
        if not block.strip():
            continue
        if block.lstrip("\n").startswith("    "):
            yield f"```python\n{textwrap.dedent(block.strip(chr(10))).strip()}\n```"
        else:
            yield _joined(block)


def _section(title: str, body: str) -> str:
    items = re.split(r"\n(?! )", body)
    matched = [_ITEM.fullmatch(item) for item in items]
    if title == "Returns" or not any(matched):
        return f"**{_TITLES[title]}**: {_joined(body)}"
    lines = [
        f"- {_names(match[1])}: {_joined(match[2])}" if match else f"- {_names(item.rstrip('.'))}"
        for item, match in zip(items, matched, strict=True)
    ]
    return f"**{_TITLES[title]}**\n\n" + "\n".join(lines)


def _names(text: str) -> str:
    return ", ".join(f"`{name.strip()}`" for name in text.split(","))


def _joined(text: str) -> str:
    return " ".join(text.split())
