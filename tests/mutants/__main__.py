"""Introduces small faults into the source, one at a time, and reports whether a test detects each.

    nice python -m tests.mutants --folder FOLDER --record [--part 1/2]
    nice python -m tests.mutants --folder FOLDER [--seed 15] [--count 200] [--part 1/2]
    python -m tests.mutants --folder FOLDER --write tests/mutants/seed-15.md

The same seed draws the same mutants from the same product. They and their verdicts are kept in FOLDER, so
that a stopped run can continue. Each is tried in a copy of the tree: first with the quick tests that
`--record` saw running its line, then with the test files that share most words with it. Needs coverage (`pip
install coverage`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from .copy_of_tree import ROOT, copy_tree
from .mutant_sample import Mutant, kept_mutants
from .page import page

MAX_TESTS = 50  # covering tests to run for a mutant


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="Folder for the copy and the verdicts.")
    parser.add_argument("--seed", type=int, default=15)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument(
        "--part", default="1/1", help="K/N: every Nth mutant from the Kth; for N runs at once."
    )
    parser.add_argument("--files", type=int, default=5, help="Test files to run for a mutant.")
    parser.add_argument("--record", action="store_true", help="Record which quick tests run each line.")
    parser.add_argument("--write", type=Path, help="Write the verdicts of all parts as a page instead.")
    parser.add_argument("--in-copy", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    mutants = kept_mutants(asked.folder / "mutants.json", ROOT, asked.seed, asked.count)
    if asked.write:
        asked.write.write_text(page(mutants, verdicts(asked.folder), asked.seed))
        return 0
    part, parts = (int(number) for number in asked.part.split("/"))
    folder = asked.folder.resolve()
    home = folder / f"part-{part}"
    if not asked.in_copy:
        python = copy_tree(home)
        temporary = home / "tmp"
        temporary.mkdir(exist_ok=True)
        command = [python, "-m", "tests.mutants", *sys.argv[1:], "--folder", str(folder), "--in-copy"]
        return subprocess.call(command, cwd=home / "tree", env={**os.environ, "TMPDIR": str(temporary)})

    if asked.record:
        from .covering_tests import record

        return record(folder, part, parts)
    try_mutants(folder, mutants, part, parts, asked.files)
    return 0


def try_mutants(folder: Path, mutants: list[Mutant], part: int, parts: int, files: int) -> None:
    from .covering_tests import CoveringTests
    from .related_tests import RelatedTests
    from .trial import Laboratory

    related, covering, laboratory = RelatedTests(ROOT), CoveringTests(folder), Laboratory(ROOT)
    known = verdicts(folder)
    for mutant in mutants[part - 1 :: parts]:
        if mutant.number in known:
            continue
        file, line = mutant.file, mutant.change.line
        outcome = laboratory.try_mutant(
            mutant, [covering.of(file, line)[:MAX_TESTS], related.of(file, line)[:files]]
        )
        with (folder / f"verdicts-{part}.jsonl").open("a") as written:
            written.write(json.dumps({"number": mutant.number, **asdict(outcome)}) + "\n")
        print(mutant.number, outcome.verdict, file, line, outcome.test, flush=True)


def verdicts(folder: Path) -> dict[int, dict[str, object]]:
    """The verdicts, by the numbers of the mutants."""
    lines = "".join(path.read_text() for path in folder.glob("verdicts-*.jsonl")).splitlines()
    return {each["number"]: each for each in map(json.loads, lines)}


if __name__ == "__main__":
    sys.exit(main())
