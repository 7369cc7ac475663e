"""The description of an engine: rules with their sources, options with their limits, and how to start it.

A rule is a condition on an adapter and on the engine's options, with its effect: the engine *refuses* the
adapter, loads it but *changes* what was trained, or *needs* attention. Rules decide nothing else. They read
no weights, except a few elements of copied embeddings (`embedding_copies`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.spec import Spec
from adaptry.bases.module_map import ModuleMap, place
from adaptry.checks.binding import BoundAdapter, bind
from adaptry.checks.runtimes.name_readers import NameReader
from adaptry.checks.runtimes.runtime import Runtime, Version
from adaptry.core.display import short_repr
from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
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
    """The adapter that rules test, as the engine reads it, with its base's record if that is known. `renamed`
    and `unread` are those of the `EngineView`; `written` is the adapter as its file has it.
    """

    adapter: Adapter
    base: BaseRecord | None = None
    written: Adapter | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def spec(self) -> Spec:
        return self.adapter.spec

    @property
    def config(self) -> AdapterConfig:
        return self.adapter.config

    @cached_property
    def module_map(self) -> ModuleMap | None:
        """The intended places of its modules, whatever their names; None if the base is unknown."""
        return None if self.base is None else place(self.spec, self.base.tensors, self.base.facts)

    @cached_property
    def bound(self) -> BoundAdapter | None:
        """The adapter bound to its base, as PEFT loads it; None if the base is unknown."""
        return None if self.base is None else bind(self.adapter, self.base)


@dataclass(frozen=True, slots=True)
class ConditionMatch:
    """The result of a condition: a sentence, and the modules or tensors concerned."""

    reason: str
    modules: tuple[str, ...] = ()


Condition = Callable[[CheckSubject, Runtime], ConditionMatch | None]


@dataclass(frozen=True, slots=True)
class RuntimeRule:
    """A rule of an engine. `source` is its place in the engine's source. It applies from version `since` up
    to before `until`, if those are known. `title` is the condition in words, for the page.
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
    """A limit among the engine's options. `allowed` are the only numbers that it accepts, if not all."""

    name: str
    flag: str
    kind: Literal["number", "names", "switch"] = "number"
    default: int | None = None
    allowed: tuple[int, ...] = ()

    def check(self, value: str) -> None:
        """Raises `Invalid` for a value that the engine does not accept."""
        match self.kind:
            case "number":
                self._check_number(value)
            case "switch" if value not in ("true", "false"):
                raise Invalid(f"{self.name} must be true or false, not {value[:40]!r}")
            case _:
                return

    def _check_number(self, value: str) -> None:
        if not (value.isascii() and value.isdecimal() and len(value) < 10 and int(value) > 0):
            raise Invalid(f"{self.name} must be a whole number of 1 or more, not {value[:40]!r}")
        if self.allowed and int(value) not in self.allowed:
            raise Invalid(f"{self.name} must be one of {', '.join(map(str, self.allowed))}, not {value}")

    def smallest_from(self, wanted: int) -> int | None:
        """The smallest accepted number that is at least `wanted`; None if all of them are smaller."""
        if not self.allowed:
            return wanted
        return next((number for number in self.allowed if number >= wanted), None)


@dataclass(frozen=True, slots=True)
class ServerNeeds:
    """The limits that a server needs for several adapters."""

    rank: int
    count: int
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuntimeRules:
    """The rules of an engine. `source_version` is the version or commit of the source that was read, and
    `latest` that version as numbers (empty if only a commit is known). `tested_against` names the program
    with which the rules are tested, for the page.

    `preconditions` come first; if one matches, no other rule is tested. `warnings` are wrong answers that
    depend on how a server is run, whatever the adapter. `start` gives its command for `ServerNeeds`. `reads`
    extracts a module's path from a tensor's name, if that differs from PEFT; `reads_for` returns the function
    for a known base, if it depends on the base. `reads_method` and `reads_rank`: whether it reads `peft_type`
    and `r`.
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
    reads: NameReader | None = None
    reads_for: Callable[[BaseRecord], NameReader] | None = None
    reads_method: bool = True
    reads_rank: bool = True
    reserves_slots: bool = False

    def option(self, name: str) -> RuntimeOption | None:
        return next((option for option in self.options if option.name == name), None)


class RuntimeVerdict(BaseModel):
    """Whether a runtime serves an adapter as trained. `rules` is the version of the engine whose source was
    read.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    runtime: str
    outcome: RuntimeOutcome
    rules: str
    findings: tuple[Finding, ...] = ()

    def __repr__(self) -> str:
        codes = ", ".join(found.code for found in self.findings)
        return short_repr(self, self.runtime, self.outcome.replace("_", " "), codes)

    def __str__(self) -> str:
        return repr(self)
