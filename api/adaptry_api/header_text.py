"""User-written text, converted for a header: one line of printable ASCII."""

from __future__ import annotations


def header_text(text: str, most: int) -> str:
    """At most `most` characters of `text`; characters that a header cannot hold become question marks."""
    line = " ".join(text.replace("→", "->").split())[:most]
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in line)
