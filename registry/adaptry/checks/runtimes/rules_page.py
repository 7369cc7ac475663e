"""The rules as the page `docs/runtimes.md`: `python -m adaptry.checks.runtimes > docs/runtimes.md`."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.checks.runtimes.rule import OUTCOME_TITLES, RuntimeOption, RuntimeRule, RuntimeRules
from adaptry.checks.runtimes.runtime import format_version
from adaptry.checks.runtimes.table import ENGINES

_EFFECTS = {"refuses": "refused", "changes": "**not as trained**", "needs": "attention"}

_HEAD = """# Runtimes: what each engine makes of an adapter

An engine that loads an adapter without an error may still serve something else: rsLoRA's scale ignored, a
saved head dropped, names that match nothing. `check` says so before it happens:

```sh
adaptry check acme/tone --runtime vllm@0.33,max_lora_rank=64 --runtime llama.cpp
```

and [`adaptry export REF --for ENGINE`](exporting.md) makes the repairs. Where each kind of wrong answer was
seen, and seen put right, is in [twelve answers that are wrong without a word](silent-answers.md).

A verdict is one of three: {outcomes}. Exit code 1 means that it is not the first. It is a function of
headers, config and, where it is known, the base's record; weights are not read, and verdicts are computed
when asked for, so that one is never older than the rules. A rule that needs the base's names is silent where
the base is not known: register it first.

```sh
adaptry runtime ls                          # the engines, and the version whose rules these are
adaptry runtime plan acme/tone acme/terse --runtime vllm   # which flags a server needs, and their memory
adaptry runtime compare http://gpu-1:8000   # what runs there, and which adapters it serves as trained
```

{versions}

This page is written by `python -m adaptry.checks.runtimes > docs/runtimes.md`, from the rules themselves.
"""

_VERSIONS = """\
Every rule names where in the engine it was read. No engine's rules were read in more than one version: of
another version the verdict says so, as `rules_of_another_version`. What the tests hold the rules to is the
engine itself where its package installs and runs without a GPU, else that of its code which reads adapters;
where neither can be had, to nothing:

{table}

mistral.rs, SGLang and LMDeploy are each given the same adapters of a small Llama, one for each thing that
engines take in different ways: what is said of it is what they do, and what is exported of it is served as
PEFT answers with the original."""


def render_page() -> str:
    """The whole page."""
    outcomes = ", ".join(f"*{text}*" for text in OUTCOME_TITLES.values())
    rows = [
        "| engine | the rules are held to |",
        "|---|---|",
        *(f"| {e.title} | {e.tested_against} |" for e in ENGINES.values()),
    ]
    head = _HEAD.format(outcomes=outcomes, versions=_VERSIONS.format(table="\n".join(rows)))
    return "\n".join([head, *("\n".join(_lines(engine)) for engine in ENGINES.values())])


def _lines(engine: RuntimeRules) -> Iterator[str]:
    yield f"## {engine.title}\n"
    yield f"`{engine.name}`, read in {engine.source_version}.\n"
    yield "| | an adapter with | what repairs it | read in |"
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
