"""User-written text, converted for a header: one line of printable ASCII."""

from __future__ import annotations


def header_text(text: str, maximum: int) -> str:
    """At most `maximum` characters of `text`; characters that a header cannot hold become question marks."""
    line = " ".join(text.replace("→", "->").split())[:maximum]
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in line)
