"""Suggestions for mistyped words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest_words(text: str, candidates: Iterable[str], *, most: int = 3) -> list[str]:
    """The candidates that are close to `text`, the closest first."""
    folded = {one.lower(): one for one in candidates}
    return [folded[one] for one in difflib.get_close_matches(text.lower(), folded, n=most, cutoff=0.6)]


def suggestion(text: str, candidates: Iterable[str], *, template: str = "{}") -> str:
    """`; did you mean prod?`, to append to an error; empty if no candidate is close. `template` formats each
    candidate.
    """
    found = [template.format(one) for one in closest_words(text, candidates)]
    return f"; did you mean {' or '.join(found)}?" if found else ""
