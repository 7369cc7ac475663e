"""Compares every method with its own library: describes, checks and merges it, and compares the merge with
PEFT's.

    python bench/conformance.py [--cache .bench/corpus] [--methods loha,ia3] [--write docs/methods.md]

The corpus (adapters of every method, on every family of models that supports it, in two precisions) is made
by PEFT in `--cache` and reused. With `--write` the table in README.md follows the page; methods that were not
run keep their rows. PEFT runs on as many threads as torch takes by itself. The exit code is 1 if a result is
not as promised by the method's table entry.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the corpus is the tests'

import transformers
from comparison import Outcome, measure
from methods_page import Tally, page, with_table
from tests.methods.corpus import DTYPES, Case, NotByPeft, cases, make
from tests.methods.variants import VARIANTS

README = Path(__file__).resolve().parents[1] / "README.md"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=Path(".bench/corpus"))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(VARIANTS))
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the tables of methods there")
    asked = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    outcomes = list(_run(list(cases(asked.methods)), asked.cache))
    not_by_peft = sum(bool(outcome.by_peft) for outcome in outcomes)
    wrong = sum(bool(outcome.wrong) for outcome in outcomes)
    print(
        f"{len(outcomes)} cases: PEFT supports {len(outcomes) - not_by_peft}, and of those "
        f"{len(outcomes) - not_by_peft - wrong} are as promised"
    )
    if asked.write:
        was = asked.write.read_text() if asked.write.exists() else ""
        text = page(tallies(outcomes), was)
        asked.write.write_text(text)
        README.write_text(with_table(README.read_text(), text))
    sys.exit(bool(wrong))


def _run(chosen: Sequence[Case], cache: Path) -> Iterator[Outcome]:
    for case in chosen:
        try:
            outcome = measure(make(case, cache), cache / "merged")
        except NotByPeft as error:
            outcome = Outcome(case, by_peft=str(error))
        except ImportError as error:  # some methods need an additional package for training
            print(f"left out  {case}: {error}")
            continue
        print(outcome, flush=True)
        yield outcome


def tallies(outcomes: Sequence[Outcome]) -> dict[str, Tally]:
    """The page's figures for each method."""
    return {
        name: _tally([outcome for outcome in outcomes if outcome.case.method == name])
        for name in dict.fromkeys(outcome.case.method for outcome in outcomes)
    }


def _tally(outcomes: Sequence[Outcome]) -> Tally:
    made = [outcome for outcome in outcomes if not outcome.by_peft]
    differences = [
        (outcome.case.dtype, outcome.difference) for outcome in made if outcome.difference is not None
    ]
    return Tally(
        cases=len(made),
        described=sum(outcome.is_described for outcome in made),
        checked=sum(outcome.is_checked for outcome in made),
        merged=len(differences),
        equal=sum(difference == 0 for _, difference in differences),
        differences=[
            max((difference for other, difference in differences if other == dtype), default=0.0)
            for dtype in DTYPES
        ],
        families={
            family: _word([outcome for outcome in outcomes if outcome.case.family == family])
            for family in dict.fromkeys(outcome.case.family for outcome in outcomes)
        },
    )


def _word(outcomes: Sequence[Outcome]) -> str:
    """The outcome of one method on one family, as shown on the page."""
    made = [outcome for outcome in outcomes if not outcome.by_peft]
    if not made:
        return "–"
    if any(outcome.wrong for outcome in made):
        return "wrong"
    differences = [outcome.difference for outcome in made if outcome.difference is not None]
    if not differences:
        return "read"
    word = f"{max(differences):.0e}" if any(differences) else "="
    return f"{word}, or refused" if len(differences) < len(made) else word


if __name__ == "__main__":
    main()
