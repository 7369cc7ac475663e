"""Suggestions for mistyped words."""

from __future__ import annotations

from collections.abc import Iterable


def closest_words(
    text: str, candidates: Iterable[str], *, maximum: int = 3, cutoff: float = 0.6
) -> list[str]:
    """The candidates that are close to `text`, the closest first. `cutoff`: the minimum similarity; 1 means
    equal (`difflib.SequenceMatcher.ratio`).
    """
    import difflib  # few requests have mistakes

    folded = {one.lower(): one for one in candidates}
    return [folded[one] for one in difflib.get_close_matches(text.lower(), folded, n=maximum, cutoff=cutoff)]


def path_suggestion(text: str, candidates: Iterable[str]) -> str:
    """`suggestion` for names such as `acme/tone`, whose parts are compared one by one: a namespace in common
    does not make two names close. In another namespace, the name must be the same, or the namespace close
    too.
    """
    head, _, last = text.lower().rpartition("/")
    near = [one for one in candidates if _are_parts_close(head, last, one.lower())]
    return suggestion(text, near, cutoff=0.0)


def _are_parts_close(head: str, last: str, candidate: str) -> bool:
    other_head, _, other_last = candidate.rpartition("/")
    is_same_name = last == other_last
    is_close_name = is_same_name or bool(closest_words(last, [other_last]))
    return is_close_name and (is_same_name or head == other_head or bool(closest_words(head, [other_head])))


def suggestion(text: str, candidates: Iterable[str], *, template: str = "{}", cutoff: float = 0.6) -> str:
    """`; did you mean prod?`, to append to an error; empty if no candidate is close. `template` formats each
    candidate. `cutoff`: see `closest_words`.
    """
    found = [template.format(one) for one in closest_words(text, candidates, cutoff=cutoff)]
    return f"; did you mean {' or '.join(found)}?" if found else ""
