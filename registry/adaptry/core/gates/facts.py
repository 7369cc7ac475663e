"""The facts behind a decision about an alias: the evidence, approvals and verdicts that its conditions name.

The conditions and these facts alone give the decision, so it can be repeated years later. A samples file is
represented by its digest and by the numbers that a comparison needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict

from adaptry.core.digest import Digest
from adaptry.core.evidence.values import Direction
from adaptry.core.gates.expression import Call, PolicyCondition


class Fact(BaseModel):
    """Frozen, and compared by value."""

    model_config = ConfigDict(frozen=True)


class EvidenceFact(Fact):
    """Evidence as `registry.evidence` has it; `id` is its number in the registry that decided."""

    id: int
    task: str | None = None
    task_version: str | None = None
    task_hash: str | None = None
    settings: str | None = None
    metric: str
    filter: str | None = None
    value: float
    stderr: float | None = None
    n: int | None = None
    direction: Direction = "unknown"
    dataset: str | None = None
    chat_template: str | None = None
    format: str | None = None
    file: Digest | None = None
    samples: Digest | None = None

    def is_confirmed_by(self, other: EvidenceFact) -> bool:
        """Whether a registry's evidence is the same, apart from its id. If the record of an older decision
        has no settings, they are not compared.
        """
        own = {"id": other.id, "settings": self.settings or other.settings}
        return self.model_copy(update=own) == other


class VersionFact(Fact):
    """A version, with the newest evidence of each kind that the conditions name."""

    number: int
    digest: Digest
    state: str
    evidence: tuple[EvidenceFact, ...] = ()


class ComparedFact(Fact):
    """The version that an alias points at, for comparison with another; None if the alias does not exist."""

    vs: str
    version: VersionFact | None = None


class PairedFact(Fact):
    """The differences of a metric between two versions, document by document: positive where the first is
    better.

    `gained` and `lost` count the documents in which only the first, or only the second, is right; they are
    None unless every score is 0 or 1. With a `problem`, the documents cannot be paired.
    """

    vs: str
    first: Digest
    second: Digest
    metric: str
    filter: str | None = None
    n: int = 0
    mean: float = 0.0
    deviation: float = 0.0
    gained: int | None = None
    lost: int | None = None
    is_bounded: bool = False
    problem: str | None = None


class FitFact(Fact):
    """The verdict of a runtime on the version; only `as_trained` satisfies a condition. `reason` explains
    other verdicts."""

    runtime: str
    outcome: str
    reason: str = ""


class ApprovalFact(Fact):
    """The members of a group who approved the move; `ignored` are approvals that do not count, each with the
    reason. If there is a `problem`, the registry cannot record approvals.
    """

    group: str
    by: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    problem: str | None = None


class GateFacts(Fact):
    """All facts that the conditions of one decision use.

    `knows_settings` is False in records of versions of Adaptry that did not read how a task was run; a replay
    of these compares without it, as the decision did.
    """

    subject: VersionFact
    compared: tuple[ComparedFact, ...] = ()
    fits: tuple[FitFact, ...] = ()
    approvals: tuple[ApprovalFact, ...] = ()
    paired: tuple[PairedFact, ...] = ()
    knows_settings: bool = False

    def version_at(self, vs: str) -> VersionFact | None:
        return next((one.version for one in self.compared if one.vs == vs), None)

    @property
    def all_evidence(self) -> Iterator[tuple[VersionFact, EvidenceFact]]:
        versions = (self.subject, *(one.version for one in self.compared if one.version))
        return ((version, one) for version in versions for one in version.evidence)


def split_metric(call: Call) -> tuple[str, str | None]:
    """The metric and filter that a call names; `exact_match,strict-match`, as lm-eval writes it, is both."""
    metric, _, filter = call.text("metric").partition(",")
    return metric, call.optional("filter") or (filter or None)


def calls_of(conditions: Iterable[PolicyCondition], *functions: str) -> tuple[Call, ...]:
    return tuple(call for one in conditions for call in one.calls if call.function in functions)
