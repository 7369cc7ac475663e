"""Suggestions for mistyped words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest_words(word: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """The known words that are nearly `word`, the nearest first."""
    folded = {one.lower(): one for one in known}
    return [folded[one] for one in difflib.get_close_matches(word.lower(), folded, n=most, cutoff=0.6)]


def suggestion(word: str, known: Iterable[str], *, shown: str = "{}") -> str:
    """`; did you mean prod?`, to be put behind an error; nothing if no known word is near. `shown`: how a
    word is written there.
    """
    found = [shown.format(one) for one in closest_words(word, known)]
    return f"; did you mean {' or '.join(found)}?" if found else ""
