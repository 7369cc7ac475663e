"""Colours that mean something: green is live or done, yellow needs a look, red must not be used or failed.

They appear on terminals only; NO_COLOR switches them off, FORCE_COLOR on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import click

_GOOD, _CARE, _BAD = "green", "yellow", "red"
STYLES: Mapping[str, str] = {
    "active": _GOOD, "prod": _GOOD, "ok": _GOOD, "done": _GOOD, "serving": _GOOD, "running": _GOOD,
    "as trained": _GOOD, "no findings": _GOOD,
    "deprecated": _CARE, "yanked": _CARE, "warns": _CARE, "warning": _CARE, "unknown": _CARE, "queued": _CARE,
    "engine away": _CARE, "altered": _CARE, "cancelled": _CARE,
    "quarantined": _BAD, "revoked": _BAD, "damaged": _BAD, "blocks": _BAD, "fails": _BAD, "failed": _BAD,
    "refused": _BAD, "refuted": _BAD, "error": _BAD, "differs": _BAD, "aborted": _BAD,
}  # fmt: skip
"""The colour of each word that stands alone in a cell, or begins a line before a colon."""


def paint(text: str, style: str) -> str:
    """`text` in a colour, or in bold as a `heading`, where stdout has colours."""
    if not style or not text or not has_colours():
        return text
    return click.style(text, bold=True) if style == "heading" else click.style(text, fg=style)


def has_colours() -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
