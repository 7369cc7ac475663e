"""User-written text, converted for a header: one line of printable ASCII."""

from __future__ import annotations


def header_text(text: str, maximum: int) -> str:
    """Cuts `text` to at most `maximum` characters; characters that a header cannot contain become question
    marks.
    """
    line = " ".join(text.replace("→", "->").split())[:maximum]
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in line)
