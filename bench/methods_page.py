"""Generates `docs/methods.md` from the table `METHODS` and a run, and README.md's short table from that page.

Columns that do not depend on a run come from `adaptry_cli.capabilities`; a test compares both tables with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.method import Method
from adaptry_cli.capabilities import method_row

FAMILIES = {
    "llama": "Llama", "gpt2": "GPT-2", "bert": "BERT", "t5": "T5", "qwen2_moe": "experts", "llava": "Llava",
    "llava_new_names": "Llava, new names", "resnet": "ResNet", "attention": "attention", "conv1d": "Conv1d",
    "conv2d": "Conv2d", "conv3d": "Conv3d",
}  # fmt: skip
_HEAD = """# Methods

`python bench/conformance.py --write docs/methods.md` generates this page. PEFT itself creates an adapter of
every method on every family of models, in float32 and bfloat16, with non-trivial weights, and the results are
compared with PEFT's. A test compares the page with the table in `adaptry.adapters.methods`.

*Described*: the spec has every tensor of the file. *Checked*: the adapter passes the checks against its base,
and broken variants do not. *Merged*: how close the merge is to PEFT's `merge_and_unload`; if there is no
merge, the reason and the alternative. *As LoRA*: whether its update can be written as a plain LoRA: exactly,
or approximately with a limited rank, as `adaptry convert` does. Some configs differ from their method (a
DoRA, a PiSSA, a MiSS of `bat`); `adaptry inspect` shows the answer for one adapter. *Cases*: the number of
cases that PEFT supports, and the number in which every bit was equal. *Difference*: the largest difference
between an element of our result and PEFT's, divided by the largest element of the same tensor, in float32 and
in bfloat16. Rounding a number once changes it by up to 6.0e-08 in float32 and 3.9e-03 in bfloat16, relative
to itself; if two results are rounded to different neighbours, they differ by up to twice that.

Adaptry merged each weight on one thread. PEFT used torch's default (two threads, on an AMD EPYC), but one for
HiRA. With another number of threads, or on another processor, torch sums convolutions, Fourier transforms and
decompositions in another order, so results that depend on them are equal within rounding. On one thread,
PEFT's convolutions were bit-equal on the same machine.

A method that is not listed is stored, listed and pulled like any other, but neither checked nor merged.

| Method | `peft_type` | Described | Checked | Merged | As LoRA | Cases | Difference |
|---|---|---|---|---|---|---|---|
"""
_FAMILIES_HEAD = """
## On which models

`=`: merged, with every bit equal to PEFT's in that run. A number: the largest difference, as above, in either
precision. `read`: described and checked, but not merged. `–`: PEFT itself does not create or merge such an
adapter. Empty: the model has no modules of the kind.

*Llama* has grouped queries and biases, *GPT-2* has Conv1D layers, *experts* is a Qwen2-MoE with its experts
in one parameter, and *Llava* has a vision tower and a language model, under the names that transformers 5
writes and under those in memory. *attention* is torch's MultiheadAttention.

"""
_START, _END = "<!-- methods: from docs/methods.md -->", "<!-- /methods -->"


@dataclass(frozen=True)
class Tally:
    """The results of a run for one method. `differences`: the largest in float32 and in bfloat16. `families`:
    the entry for each tested family.
    """

    cases: int
    described: int
    checked: int
    merged: int
    equal: int
    differences: Sequence[float]
    families: Mapping[str, str] = field(default_factory=dict)


def page(tallies: Mapping[str, Tally], was: str = "") -> str:
    """The whole page. A method that was not run keeps the figures of the previous page `was`, with current
    descriptions; one that was never run has only descriptions."""
    by_kind = {row[1]: row for row in rows(was)}
    by_title = {row[0]: row for row in _rows_of_families(was)}
    methods = sorted(METHODS.values(), key=lambda method: (not method.is_mergeable, method.title.lower()))
    by_method = "".join(
        _line(*_row(method, tallies.get(method.name), by_kind.get(method.name.upper()))) for method in methods
    )
    by_family = _line("Method", *FAMILIES.values()) + _line(*["---"] * (len(FAMILIES) + 1))
    for method in methods:
        if method.name not in tallies and method.title in by_title:
            by_family += _line(*by_title[method.title])
            continue
        found = tallies[method.name].families if method.name in tallies else {}
        by_family += _line(method.title, *(found.get(family, "") for family in FAMILIES))
    return _HEAD + by_method + _FAMILIES_HEAD + by_family


def rows(page: str) -> list[list[str]]:
    """The cells of the page's first table, a list for each method."""
    lines = [line for line in page.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def with_table(readme: str, page: str) -> str:
    """`readme` with the table that follows from `page` between its marks. Methods of one answer share a
    row.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for title, _, described, checked, merged, lora, _, difference in rows(page):
        answers = (described, checked, _comparison(merged, difference), lora)
        groups.setdefault(answers, []).append(title)
    table = _line("Methods", "Described", "Checked", "Merge, compared with PEFT's", "As LoRA")
    table += _line(*["---"] * 5)
    table += "".join(_line(", ".join(titles), *answers) for answers, titles in groups.items())
    pattern = re.compile(f"(?<={re.escape(_START)}\n).*(?={re.escape(_END)})", re.DOTALL)
    return pattern.sub(lambda _: table, readme)


def _comparison(merged: str, difference: str) -> str:
    """README.md's text about a method's differences; `comparison.py` allows only rounding."""
    if not difference:
        return "not merged"
    if difference == "0; 0":
        return "every bit equal"
    return (
        "every bit equal, in some cases within rounding"
        if merged.startswith("bit-equal")
        else "equal within rounding"
    )


def _rows_of_families(page: str) -> list[list[str]]:
    lines = [line for line in page.partition("## On which models")[2].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[2:]]


def _row(method: Method, tally: Tally | None, was: list[str] | None) -> tuple[str, ...]:
    title, kind, merged, lora = method_row(method)
    if tally is None and was is not None:
        return title, kind, *was[2:4], merged, lora, *was[6:]
    if tally is None:
        return title, kind, "", "", merged, lora, "none", ""
    cases = f"{tally.cases}, {tally.equal} equal" if tally.merged else str(tally.cases)
    difference = "; ".join(f"{one:.1e}" if one else "0" for one in tally.differences) if tally.merged else ""
    return (
        title,
        kind,
        _of(tally.described, tally.cases),
        _of(tally.checked, tally.cases),
        merged,
        lora,
        cases,
        difference,
    )


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _of(count: int, cases: int) -> str:
    return "yes" if count == cases else f"{count} of {cases}"
