"""Draws mutants by a seed: every line of the product that can be changed has the same probability."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from .changes import Change, changes
from .copy_of_tree import PACKAGES


@dataclass(frozen=True, slots=True)
class Mutant:
    number: int
    file: str
    change: Change

    @property
    def room(self) -> str:
        return room_of(self.file)


def kept_mutants(file: Path, root: Path, seed: int, count: int) -> list[Mutant]:
    """The mutants in the file, which are drawn and written to it the first time."""
    if not file.exists():
        file.write_text(json.dumps([asdict(mutant) for mutant in draw(root, seed, count)], indent=1))
    return [Mutant(**{**each, "change": Change(**each["change"])}) for each in json.loads(file.read_text())]


def draw(root: Path, seed: int, count: int) -> list[Mutant]:
    """Draws this many mutants on different lines; fewer only if there are fewer lines to change."""
    lines: dict[tuple[str, int], list[Change]] = defaultdict(list)
    for file in product_files(root):
        for change in changes((root / file).read_bytes()):
            lines[file, change.line].append(change)
    chance = random.Random(seed)
    order = sorted(lines)
    chance.shuffle(order)
    drawn: list[Mutant] = []
    for file, line in order:
        change = chance.choice(lines[file, line])
        if len(drawn) < count and _compiles(change.apply((root / file).read_bytes())):
            drawn.append(Mutant(len(drawn) + 1, file, change))
    return drawn


def product_files(root: Path) -> list[str]:
    """The source files that users get, without those for tests."""
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    files = [path.relative_to(root) for path in paths]
    return [file.as_posix() for file in files if "testing" not in file.parts and file.stem != "testing"]


def room_of(file: str) -> str:
    """The part of the product, by the file's path from the root of the repository."""
    _, package, room, *rest = file.split("/")
    if package == "adaptry":
        return room if rest else "adaptry"
    return package


def _compiles(source: bytes) -> bool:
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True
