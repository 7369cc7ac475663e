"""Text that came from people, made fit for a header: one line of printable ASCII."""

from __future__ import annotations


def header_text(text: str, most: int) -> str:
    """At most `most` characters of it; what a header cannot hold becomes a question mark."""
    line = " ".join(text.replace("→", "->").split())[:most]
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in line)
