"""Suggestions for mistyped words."""

from __future__ import annotations

from collections.abc import Iterable


def closest_words(text: str, candidates: Iterable[str], *, most: int = 3, cutoff: float = 0.6) -> list[str]:
    """The candidates that are close to `text`, the closest first. `cutoff`: the least similarity, of which 1
    is the same word (`difflib.SequenceMatcher.ratio`).
    """
    import difflib  # few requests have mistakes

    folded = {one.lower(): one for one in candidates}
    return [folded[one] for one in difflib.get_close_matches(text.lower(), folded, n=most, cutoff=cutoff)]


def suggestion(text: str, candidates: Iterable[str], *, template: str = "{}", cutoff: float = 0.6) -> str:
    """`; did you mean prod?`, to append to an error; empty if no candidate is close. `template` formats each
    candidate. `cutoff`: see `closest_words`.
    """
    found = [template.format(one) for one in closest_words(text, candidates, cutoff=cutoff)]
    return f"; did you mean {' or '.join(found)}?" if found else ""
