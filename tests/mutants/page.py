"""The page that lists every mutant and its verdict."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from .mutant_sample import Mutant

SECONDS = 20
"""Of processor time, for one round of tests of a mutant; nine of ten that are caught are caught sooner."""


COLUMNS = ("caught", "survived", "not run", "not tried")
_HEAD = """# Mutants

Made by `python -m tests.mutants --write`, seed {seed}. Each mutant was tried with the quick tests
that run its line, the quickest first, then with the test files that share most words with it: each time
until a test failed or {seconds} s of processor time were spent.

*Survived*: the line ran, and no test failed. *Not run*: none of those tests ran the line in its own
process; a line that runs only in programs that a test starts counts as not run. Another test may still
catch either.
"""


def page(mutants: list[Mutant], verdicts: Mapping[int, Mapping[str, object]], seed: int) -> str:
    rooms: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant in mutants:
        rooms[mutant.room][_verdict(mutant, verdicts)] += 1
    total = sum(rooms.values(), Counter[str]())
    lines = [_HEAD.format(seed=seed, seconds=SECONDS)]
    lines += [f"| room | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]
    for room, counts in [*sorted(rooms.items()), ("all", total)]:
        lines.append(f"| {room} | {' | '.join(str(counts[column]) for column in COLUMNS)} |")
    lines += ["", "| # | file | line | change | verdict |", "|---:|---|---:|---|---|"]
    for each in mutants:
        place = f"{each.file} | {each.change.line}"
        lines.append(f"| {each.number} | {place} | {_change(each)} | {_verdict(each, verdicts)} |")
    return "\n".join(lines) + "\n"


def _verdict(mutant: Mutant, verdicts: Mapping[int, Mapping[str, object]]) -> str:
    return str(verdicts.get(mutant.number, {"verdict": "not tried"})["verdict"])


def _change(mutant: Mutant) -> str:
    before, after = (" ".join(text.split())[:50] for text in (mutant.change.before, mutant.change.after))
    return f"{mutant.change.kind}: `{before}` → `{after}`".replace("|", "\\|")
