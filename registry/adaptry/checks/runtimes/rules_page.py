"""The rules as the page `docs/runtimes.md`: `python -m adaptry.checks.runtimes > docs/runtimes.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adaptry.checks.runtimes.rule import OUTCOME_TITLES, RuntimeOption, RuntimeRule, RuntimeRules
from adaptry.checks.runtimes.runtime import format_version
from adaptry.checks.runtimes.table import ENGINES

_EFFECTS = {"refuses": "refused", "changes": "**not as trained**", "needs": "attention"}

_HEAD = """# Runtimes: how each engine treats an adapter

An engine may load an adapter without an error and still serve something else: it may ignore rsLoRA's scale,
drop a saved head, or not find the names. `check` reports this beforehand:

```sh
adaptry check acme/tone --runtime vllm@0.33,max_lora_rank=64 --runtime llama.cpp
```

and [`adaptry export REF --for ENGINE`](exporting.md) makes the repairs. The page [twelve silently wrong
answers](silent-answers.md) shows where each kind was observed, before and after the repair.

There are three verdicts: {outcomes}. The exit code is 1 for any but the first. The tables below list the
rules; the effect *attention* is a note, which does not change the verdict. A verdict is a function of
headers, config and the base's record, if that is known. The only weights read are up to 256 elements of an
embedding that the file copies from its base, for a comparison. Verdicts are computed on demand, so they are
never older than the rules. Rules that need the base's tensor names are skipped if the base is unknown, so
register it first.

```sh
adaptry runtime ls                          # the engines, and the version of the rules for each
adaptry runtime plan acme/tone acme/terse --runtime vllm   # the options that a server needs, and the memory
adaptry runtime compare http://gpu-1:8000   # the engine there, and which adapters it serves as trained
```

{versions}

This page is generated from the rules by `python -m adaptry.checks.runtimes > docs/runtimes.md`.
"""

_VERSIONS = """\
Every rule names the place in the engine's source that it describes. The rules of each engine come from a
single version; for any other version, the verdict has the finding `rules_of_another_version`. The tests
compare the rules with the engine itself, if its package can be installed and runs without a GPU; otherwise
with its code that reads adapters. Where neither is possible, the rules are not tested:

{table}

The tests give mistral.rs, SGLang and LMDeploy the same adapters of a small Llama, one for each feature that
engines treat differently. Each verdict must match what the engine does, and the engine must answer with each
exported adapter as PEFT does with the original.

### How often a verdict is right

`python -m tests.runtimes.matrix` gives each engine the named variants and generated adapters of a small
Llama: random LoRAs (a few of another method), as PEFT saves them, with up to two random changes of names,
tensors, shapes, dtypes or config. The test compares the engine's
log-probabilities with PEFT's for the same adapter, or for the unchanged one if PEFT does not load all of it;
for the readers of SGLang and LMDeploy, the weights that they assign; for a refusal, the error. In a *miss*,
the verdict is served as trained, but the engine refuses the adapter, drops part of it or answers differently.
In a *false alarm*, the verdict is refused or changed, but the engine answers like PEFT. *Other kind*: the
verdict is refused, but the engine loads and changes the adapter, or the reverse. Seeds are *fresh* if no rule
was changed because of their adapters:

{measured}

vLLM was not run again after seeds 7000–7299. In that run, PEFT and llama.cpp had one miss each: biases of
`lora_B` that the config does not declare, which PEFT drops, and an update with a `lora_alpha` of 0, which
llama.cpp applies at scale 1. Their rules were added afterwards. Seeds 9500–9799 gave three false
alarms, all for a `qalora_group_size` in adapters where the engine ignores it: a string (PEFT, mistral.rs) and
null (PEFT). It is only checked with `use_qalora` now.

If an adapter changes an embedding, PEFT saves a copy of the embedding with the update, and loads it; vLLM,
SGLang and llama.cpp ignore the copy and use the base's embedding. Their verdicts compare the copy with the
base's record, at the positions that the record has: *served as trained* if they agree, *not as trained* if
the copy was changed or rounded. A change elsewhere is not found.

An `r` of 0, -1, 1.5 or null, or a number written as text, is refused before any rule is tested; an engine
that does not read the field serves such an adapter as trained, which counts as a false alarm.

`--keep FOLDER` keeps the engines' replies: an interrupted run continues where it stopped, and a changed rule
is evaluated without running the engines again. `--engine NAME` runs only that engine.

This comparison was not run for: {unrun}."""
MEASURED = Path(__file__).with_name("matrix.json")
"""The file with counts that `python -m tests.runtimes.matrix --write` wrote."""


def render_page() -> str:
    """The complete page."""
    outcomes = ", ".join(f"*{text}*" for text in OUTCOME_TITLES.values())
    rows = [
        "| engine | its rules are tested against |",
        "|---|---|",
        *(f"| {e.title} | {e.tested_against} |" for e in ENGINES.values()),
    ]
    run = json.loads(MEASURED.read_text())
    versions = _VERSIONS.format(
        table="\n".join(rows),
        measured="\n".join(_measured(run)),
        unrun=", ".join(engine.title for name, engine in ENGINES.items() if name not in run),
    )
    head = _HEAD.format(outcomes=outcomes, versions=versions)
    return "\n".join([head, *("\n".join(_lines(engine)) for engine in ENGINES.values())])


def _measured(engines: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """(`Any`: JSON.)"""
    heads = ("engine", "seeds", "adapters", "as trained", "changed", "refused", "misses", "false alarms")
    yield f"| {' | '.join(heads)} | other kind |"
    yield "|---|---|---|---|---|---|---|---|---|"
    keys = ("adapters", "as_trained", "changed", "refused", "misses", "false_alarms", "other")
    for name, row in engines.items():
        kind = "fresh" if row["fresh"] else "rules were corrected on them"
        if first := row.get("while_fresh"):
            kind += f" (before: misses {first['misses']}, false alarms {first['false_alarms']})"
        seeds = f"{row['seeds'][0]}–{row['seeds'][1]}, {kind}"
        numbers = " | ".join(str(row[key]) for key in keys)
        yield f"| {ENGINES[name].title} {row['version']} | {seeds} | {numbers} |"


def _lines(engine: RuntimeRules) -> Iterator[str]:
    yield f"## {engine.title}\n"
    yield f"`{engine.name}`, from the source of {engine.source_version}.\n"
    yield "| effect | an adapter with | remedy | source |"
    yield "|---|---|---|---|"
    for rule in (*engine.preconditions, *engine.rules):
        yield _row(rule)
    yield ""
    if engine.options:
        yield f"Options: {', '.join(map(_option, engine.options))}.\n"
    if engine.warnings:
        yield from (f"- {caution}" for caution in engine.warnings)
        yield ""


def _row(rule: RuntimeRule) -> str:
    span = f" (from {format_version(rule.since)})" if rule.since else ""
    span += f" (before {format_version(rule.until)})" if rule.until else ""
    return f"| {_EFFECTS[rule.effect]} | {rule.title}{span} | {rule.repair} | {rule.source} |"


def _option(option: RuntimeOption) -> str:
    default = f" (default {option.default})" if option.default else ""
    allowed = f", one of {', '.join(map(str, option.allowed))}" if option.allowed else ""
    return f"`{option.name}`{default}{allowed}"
