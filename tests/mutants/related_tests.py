"""Ranks test files by how many words they share with a line of the product.

Rare words count more, and the words of the function around the line count three times. Imports would not do:
the tests of the command line and of the server name commands and routes.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from pathlib import Path

_WORD = re.compile(r"[A-Za-z]{3,}")


class RelatedTests:
    def __init__(self, root: Path) -> None:
        self._root = root
        texts = {path: path.read_text() for path in sorted((root / "tests").rglob("test_*.py"))}
        self._words = {path.relative_to(root).as_posix(): _words(text) for path, text in texts.items()}
        occurs = Counter(word for words in self._words.values() for word in words)
        self._weights = {word: math.log(len(texts) / count) for word, count in occurs.items()}
        self._lengths = {file: self._length(words) for file, words in self._words.items()}

    def of(self, file: str, line: int) -> list[str]:
        """All test files, the most related first."""
        source = (self._root / file).read_text()
        wanted = _words(source.replace("\n\n", "\n"))
        for word, count in _words(_function_around(source, line)).items():
            wanted[word] += 2 * count
        wanted.update(dict.fromkeys(_words(file), 3))
        return sorted(self._words, key=lambda test: -self._likeness(wanted, test))

    def _likeness(self, wanted: Counter[str], test: str) -> float:
        words = self._words[test]
        product = sum(
            _dampened(count) * _dampened(words[word]) * self._weights[word] ** 2
            for word, count in wanted.items()
            if word in words
        )
        return product / self._lengths[test]

    def _length(self, words: Counter[str]) -> float:
        return math.sqrt(sum((_dampened(count) * self._weights[word]) ** 2 for word, count in words.items()))


def _words(text: str) -> Counter[str]:
    return Counter(word.lower() for word in _WORD.findall(text))


def _dampened(count: int) -> float:
    return 1 + math.log(count)


def _function_around(source: str, line: int) -> str:
    """The innermost function or class with that line, or the line."""
    around = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        and node.lineno <= line <= (node.end_lineno or 0)
    ]
    if not around:
        return source.splitlines()[line - 1]
    return ast.get_source_segment(source, max(around, key=lambda node: node.lineno)) or ""
