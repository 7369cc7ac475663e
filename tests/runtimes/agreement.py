"""Compares the result of a real engine, or of its adapter reader, with the verdict for each case; the two
agree, or the test names the exception.

All cases, and their exports for the engine, run in one process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from adaptry.adapters.adapter import open_dir
from adaptry.checks.runtimes import Runtime, RuntimeVerdict, check_runtime
from adaptry.compute.exporting.export import export
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.errors import AdaptryError

from ..formats.other_environment import OtherEnvironment
from .cases import CASES, PROMPTS, Base, Case, made, odds_with, trained_odds
from .engine_queries import ask

CLOSE = 1e-4
"""Two float32 sums of such a model differ by less (seen: 6e-6); a wrong scale by 0.05 and more."""
LOST = 1e-5
"""Of an update: what a factorisation in float32 loses, and no resize to a smaller rank."""
Told = Callable[[Base, Sequence[Path], Path], list[Any]]


@dataclass(frozen=True)
class Seen:
    """The engine's result: `refused` with its message, or `apart`, the distance of its output from PEFT's."""

    refused: str | None = None
    apart: float = 0.0

    @property
    def outcome(self) -> str:
        if self.refused is not None:
            return "refused"
        return "as_trained" if self.apart < CLOSE else "not_as_trained"


@dataclass(frozen=True)
class Both:
    """One case: the verdict and the observed result, also for its export, or the reason why there is none."""

    said: RuntimeVerdict
    seen: Seen
    export: Seen | None
    unexported: str


def answers(environment: OtherEnvironment) -> Told:
    """An engine that answers requests: it returns log-probabilities."""

    def told(base: Base, adapters: Sequence[Path], folder: Path) -> list[Any]:
        answers = ask(environment.command(base.folder, json.dumps(PROMPTS)), adapters)
        assert float((torch.tensor(answers.ready["odds"]) - odds_with(base, {})).abs().max()) < CLOSE
        return answers.found

    return told


def readings(environment: OtherEnvironment) -> Told:
    """A reader of adapters: it returns the updates that it would add to the base's weights."""

    def told(base: Base, adapters: Sequence[Path], folder: Path) -> list[Any]:
        found = ask(environment.command(base.folder, folder), adapters).found
        return [
            {"odds": odds_with(base, load_file(one["read"])).tolist()} if "read" in one else one
            for one in found
        ]

    return told


def compared(
    runtime: Runtime, told: Told, folder: Path, base: Base, cases: Mapping[str, Case] = CASES
) -> dict[str, Both]:
    """By case."""
    setting = base.setting
    adapters = {name: made(base, case, folder / name) for name, case in cases.items()}
    said = {name: check_runtime(open_dir(path), runtime, setting.record) for name, path in adapters.items()}
    exported: dict[str, Path] = {}
    unexported: dict[str, str] = {}
    for name, path in adapters.items():
        if said[name].outcome != "as_trained":
            try:
                result = export(
                    ParentAdapter(open_dir(path), name), folder / f"{name} out", setting, runtime=runtime
                )
            except AdaptryError as error:
                unexported[name] = str(error)
            else:
                if result.equality.error > LOST:
                    unexported[name] = f"loses {result.equality.error:.2g} of its update: {result.notes}"
                elif (folder / f"{name} out" / "adapter_config.json").exists():
                    exported[name] = folder / f"{name} out"
                else:
                    unexported[name] = f"goes into its base's weights: {result.format}"
    (folder / "read").mkdir()
    found = told(base, [*adapters.values(), *exported.values()], folder / "read")
    trained = {name: trained_odds(base, adapters[cases[name].as_of or name]) for name in cases}
    seen = dict(zip([*adapters, *(f"{name} out" for name in exported)], found, strict=True))

    def looked_at(name: str, key: str) -> Seen:
        if "refused" in seen[key]:
            return Seen(seen[key]["refused"])
        return Seen(apart=float((torch.tensor(seen[key]["odds"]) - trained[name]).abs().max()))

    return {
        name: Both(
            said[name],
            looked_at(name, name),
            looked_at(name, f"{name} out") if name in exported else None,
            unexported.get(name, ""),
        )
        for name in cases
    }


class Agreement:
    """The contract of every available engine: its test class inherits this and defines `cases`."""

    def test_the_verdict_equals_the_engines_behaviour(self, cases: dict[str, Both]) -> None:
        wrong = {
            name: (both.said.outcome, both.seen)
            for name, both in cases.items()
            if both.said.outcome != both.seen.outcome
        }
        assert wrong == {}, wrong
        assert {both.seen.outcome for both in cases.values()} >= {"as_trained", "refused"}

    def test_an_export_for_the_engine_is_served_as_trained(self, cases: dict[str, Both]) -> None:
        exported = {name: both.export for name, both in cases.items() if both.export}
        assert {name for name, seen in exported.items() if seen.outcome != "as_trained"} == set()
        assert exported

    def test_an_impossible_export_for_the_engine_is_refused_with_a_reason(
        self, cases: dict[str, Both]
    ) -> None:
        missing = [both for both in cases.values() if both.said.outcome != "as_trained" and not both.export]
        assert missing
        assert all(both.unexported for both in missing)
