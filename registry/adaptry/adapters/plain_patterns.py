"""Matches plain names like PEFT, without a regular-expression engine.

Nearly every key of a `rank_pattern` is a module's name (`q_proj`), the end of a path (`self_attn.q_proj`) or
such an end with escaped dots (`self_attn\\.q_proj`). PEFT passes all of them to `re` (`get_pattern_key`),
where an unescaped dot matches any character. `PlainPattern` does the same by comparing characters. A
`PlainIndex` holds many of them and finds those that match a name with a dictionary, so the cost is not the
product of thousands of keys and thousands of modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from adaptry.core.lazy_dataclass import dataclass

_META = frozenset(r"\.^$*+?{}[]|()")
_MAX_SHAPES = 64


@dataclass(frozen=True, slots=True)
class PlainPattern:
    """A sequence of characters; at the positions in `dots`, any character matches."""

    text: str
    dots: tuple[int, ...] = ()

    def matches_whole(self, name: str) -> bool:
        """Whether the pattern matches all of `name`, like `re.fullmatch`."""
        return mask_characters(name, self.dots) == self.text if len(name) == len(self.text) else False


def parse_plain_pattern(pattern: str) -> PlainPattern | None:
    """The plain pattern that `pattern` stands for; None if it needs an engine."""
    found: list[str] = []
    dots: list[int] = []
    characters = iter(pattern)
    for character in characters:
        if character == ".":
            dots.append(len(found))
        elif character == "\\":
            character = next(characters, "")
            if not character or character.isalnum() or not character.isascii():
                return None
        elif character in _META or not character.isascii():
            return None
        found.append(character)
    return PlainPattern("".join(found), tuple(dots))


def mask_characters(text: str, dots: tuple[int, ...]) -> str:
    """`text` with a dot at each of the positions `dots`."""
    if not dots:
        return text
    characters = list(text)
    for place in dots:
        characters[place] = "."
    return "".join(characters)


def dotted_suffixes(name: str) -> Iterator[str]:
    """The dotted suffixes of a name: `a.b.c`, `b.c`, `c`."""
    yield name
    place = name.find(".")
    while place >= 0:
        yield name[place + 1 :]
        place = name.find(".", place + 1)


class PlainIndex:
    """Numbered plain patterns, found by the names that they match.

    Of patterns that match the same names, only the first for each `value` is kept, and at most two values:
    enough to know which pattern comes first and whether patterns disagree.
    """

    def __init__(self) -> None:
        self._exact: dict[str, dict[object, int]] = {}
        self._shapes: dict[tuple[int, tuple[int, ...]], dict[str, dict[object, int]]] = {}

    def add(self, number: int, pattern: PlainPattern, value: object) -> bool:
        """Adds the pattern. Returns False if lookups would become too slow, because very many patterns have
        dots at different positions.
        """
        if not pattern.dots:
            self._keep(self._exact.setdefault(pattern.text, {}), number, value)
            return True
        shape = (len(pattern.text), pattern.dots)
        if shape not in self._shapes and len(self._shapes) == _MAX_SHAPES:
            return False
        self._keep(self._shapes.setdefault(shape, {}).setdefault(pattern.text, {}), number, value)
        return True

    def numbers(self, name: str) -> Iterable[int]:
        """The numbers of the patterns that match the end of `name`, in no particular order."""
        for end in dotted_suffixes(name):
            if end in self._exact:
                yield from self._exact[end].values()
        for (length, dots), texts in self._shapes.items():
            start = len(name) - length
            if start >= 0 and (start == 0 or name[start - 1] == "."):
                yield from texts.get(mask_characters(name[start:], dots), {}).values()

    @staticmethod
    def _keep(held: dict[object, int], number: int, value: object) -> None:
        if len(held) < 2:
            held.setdefault(value, number)
