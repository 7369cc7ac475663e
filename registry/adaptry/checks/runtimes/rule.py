"""What an engine is to us: rules with their sources, options with their limits, and how to start it.

A rule is a condition on an adapter and on how the engine was started, and what comes of it: the engine
*refuses* it, loads it and *changes* what was trained, or *needs* something said. Rules decide nothing else,
and look at no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.spec import Spec
from adaptry.checks.binding import BoundAdapter, bind
from adaptry.checks.runtimes.runtime import Runtime, Version
from adaptry.core.errors import Invalid
from adaptry.core.report import Finding

Effect = Literal["refuses", "changes", "needs"]
RuntimeOutcome = Literal["as_trained", "not_as_trained", "refused"]

OUTCOME_TITLES: Mapping[RuntimeOutcome, str] = {
    "as_trained": "loads and is served as trained",
    "not_as_trained": "loads, but is not served as trained",
    "refused": "is refused",
}


@dataclass(frozen=True)
class CheckSubject:
    """The adapter of which something is asked; `base` where its record is known."""

    adapter: Adapter
    base: BaseRecord | None = None

    @property
    def spec(self) -> Spec:
        return self.adapter.spec

    @property
    def config(self) -> AdapterConfig:
        return self.adapter.config

    @cached_property
    def bound(self) -> BoundAdapter | None:
        """What PEFT makes of the adapter on its base; None where the base is not known."""
        return None if self.base is None else bind(self.adapter, self.base)


@dataclass(frozen=True, slots=True)
class ConditionMatch:
    """What a condition found: a sentence, and the modules or tensors it is about."""

    reason: str
    modules: tuple[str, ...] = ()


Condition = Callable[[CheckSubject, Runtime], ConditionMatch | None]


@dataclass(frozen=True, slots=True)
class RuntimeRule:
    """One rule of one engine. `source`: where in the engine it was read. It holds from `since` on and before
    `until`, where those are known; `title` is the condition in words, for the page.
    """

    code: str
    effect: Effect
    title: str
    when: Condition
    repair: str
    source: str
    since: Version | None = None
    until: Version | None = None

    def holds_in(self, version: Version) -> bool:
        return (self.since or ()) <= version and (self.until is None or version < self.until)


@dataclass(frozen=True, slots=True)
class RuntimeOption:
    """A limit that the engine is started with. `allowed`: the only numbers it takes, if it takes not all."""

    name: str
    flag: str
    kind: Literal["number", "names", "switch"] = "number"
    default: int | None = None
    allowed: tuple[int, ...] = ()

    def check(self, value: str) -> None:
        """Raises `Invalid` for a value that the engine does not take."""
        match self.kind:
            case "number":
                self._check_number(value)
            case "switch" if value not in ("true", "false"):
                raise Invalid(f"{self.name} is true or false, not {value[:40]!r}")
            case _:
                return

    def _check_number(self, value: str) -> None:
        if not (value.isascii() and value.isdecimal() and len(value) < 10 and int(value) > 0):
            raise Invalid(f"{self.name} is a whole number of 1 or more, not {value[:40]!r}")
        if self.allowed and int(value) not in self.allowed:
            raise Invalid(f"{self.name} is one of {', '.join(map(str, self.allowed))}, not {value}")

    def smallest_from(self, wanted: int) -> int | None:
        """The smallest number it takes that is not below `wanted`; None where there is none."""
        if not self.allowed:
            return wanted
        return next((number for number in self.allowed if number >= wanted), None)


@dataclass(frozen=True, slots=True)
class ServerNeeds:
    """What several adapters together need of one server."""

    rank: int
    count: int
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuntimeRules:
    """One engine. `source_version`: the version or commit whose source the rules are from; `latest`: that
    version as numbers, empty where only a commit is known. `tested_against`: what the rules are tested
    against, for the page.

    `preconditions` come first, and where one holds nothing else is asked. `warnings`: wrong answers that come
    of how a server is run, whatever the adapter. `start`: how to start it for `ServerNeeds`.
    """

    name: str
    title: str
    source_version: str
    tested_against: str
    preconditions: tuple[RuntimeRule, ...]
    rules: tuple[RuntimeRule, ...]
    latest: Version = ()
    options: tuple[RuntimeOption, ...] = ()
    warnings: tuple[str, ...] = ()
    start: Callable[[ServerNeeds], Sequence[str]] = lambda needs: ()
    reserves_slots: bool = False

    def option(self, name: str) -> RuntimeOption | None:
        return next((option for option in self.options if option.name == name), None)


class RuntimeVerdict(BaseModel):
    """Whether a runtime serves an adapter as it was trained. `rules`: the engine's version that was read."""

    model_config = ConfigDict(frozen=True)

    runtime: str
    outcome: RuntimeOutcome
    rules: str
    findings: tuple[Finding, ...] = ()
