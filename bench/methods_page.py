"""`docs/methods.md`: what is done with each method, from the table `METHODS`, and how it came out, from a run.

The columns that no run decides are `adaptry_cli.abilities.words`; a test holds the page to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adaptry.methods import METHODS
from adaptry.methods.method import Method
from adaptry_cli.abilities import words

_HEAD = """# Methods

Made by `python bench/conformance.py --write docs/methods.md`, which lets PEFT itself make an adapter of every method on
every family of models that supports it (Llama-like with grouped queries and biases, GPT-2, BERT, T5, a ResNet, a mixture
of experts), in float32 and bfloat16, with weights that are not trivial; and compares. A test holds it to the table in
`adaptry.methods`.

*Described*: every tensor of the file has its place in the spec. *Checked*: it passes the checks against its base, and
what is broken does not. *Merged*: how near the merge is to PEFT's `merge_and_unload`, or why there is none and what to do
instead. *As LoRA*: whether what it does can be written as a plain LoRA. *Cases*: how many were compared, and of how many
every bit was equal. *Difference*: the largest between an element of ours and PEFT's.

A method that is not here is stored, listed and pulled as any other, and neither checked nor merged.

| Method | `peft_type` | Described | Checked | Merged | As LoRA | Cases | Difference |
|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Tally:
    """What a run found of one method."""

    cases: int
    described: int
    checked: int
    merged: int
    equal: int
    difference: float | None


def page(tallies: Mapping[str, Tally]) -> str:
    """The whole page; a method without cases has its words only."""
    rows = sorted(METHODS.values(), key=lambda method: (not method.is_baked, method.title.lower()))
    return _HEAD + "".join(f"| {' | '.join(_row(method, tallies.get(method.name)))} |\n" for method in rows)


def _row(method: Method, tally: Tally | None) -> tuple[str, ...]:
    title, kind, merged, lora = words(method)
    if tally is None:
        return title, kind, "", "", merged, lora, "none", ""
    cases = f"{tally.cases}, {tally.equal} equal" if tally.merged else str(tally.cases)
    difference = "" if tally.difference is None else f"{tally.difference:.1e}" if tally.difference else "0"
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


def _of(count: int, cases: int) -> str:
    return "yes" if count == cases else f"{count} of {cases}"
