"""The workers role: what each engine has loaded, under which name, and since when.

A worker regularly reports everything that it has; a report is valid for a lease. A worker that does not
report in time is *lost*: its versions still count as served until it reports otherwise, since their state is
unknown. It reports a version before loading it, so the registry knows every version that is served. Each
reply lists the withdrawn versions that the worker ever had, until it has reported each as dropped. A user may
declare a lost worker gone. This is recorded as a declaration, not as proof, and the worker's next report ends
it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field

from adaptry.core.digest import Digest
from adaptry.core.lifecycle import State
from adaptry.core.refs import AdapterName, Ref
from adaptry.core.value import FreeText
from adaptry.registry.records import Page, Value

Condition = Literal["loading", "serving", "draining", "failed", "unloaded"]
"""Only the registry sets `unloaded`: the worker no longer reports the version. A `failed` one was never
served.
"""

ENDED: frozenset[Condition] = frozenset({"failed", "unloaded"})
"""Conditions in which the version serves no request."""

WorkerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?$")]
Short = Annotated[str, Field(max_length=256)]
MAX_RESIDENTS = 4096
"""The maximum number of residents, and of names, in a report."""
MAX_PROBLEMS = 256
"""The maximum number of problems in a report, most serious first; a worker with more reports as the last one
how many names were left out."""
Sentence = Annotated[str, Field(max_length=2048)]


def _in_utc(moment: datetime) -> datetime:
    """The moment in UTC, whatever the worker's zone. Raises `ValueError` if UTC cannot express it."""
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time is outside the years 1 to 9999 in UTC") from error


Moment = Annotated[datetime, AfterValidator(_in_utc)]


class ResidentReport(Value):
    """A version that a worker has, and the name under which clients request it."""

    name: AdapterName
    digest: Digest
    served_as: str = Field(min_length=1, max_length=256)
    condition: Condition
    since: Moment
    last_used: Moment | None = None
    reason: Sentence | None = None


class DroppedAdapter(Value):
    """A withdrawn version that a worker has unloaded, whose files it has removed, and which its engine now
    refuses.
    """

    name: AdapterName
    digest: Digest


class WorkerProblem(Value):
    """A name that a worker should serve and does not, and why."""

    served_as: str = Field(min_length=1, max_length=256)
    reason: Sentence


class RecallProof(Value):
    """A worker's proof of a recall: the registry's own signature, which the registry recognises even after a
    restore.
    """

    name: AdapterName
    digest: Digest
    state: Short
    epoch: Short
    proof: Short


class ForgottenRecall(Value):
    """A version that was `state` (revoked, quarantined) before the registry was restored; `source` is the
    worker that proved it.
    """

    name: AdapterName
    digest: Digest
    state: str
    source: str
    at: datetime


class WorkerReport(Value):
    """A worker's full status. `residents` is None if its engine does not answer; the last known residents are
    then kept.

    `base` is the engine's own name for its base, often a path, and `base_id` identifies it by content.
    `last_event` is the number of the newest event that it has applied; `lease` is how many seconds the report
    is valid; `names` are the names that it should serve (`acme/tone@prod`), loaded or not. `recalled` is sent
    once to each new epoch. `max_age` is for how many seconds it serves the last known versions while it
    cannot reach the registry; None if it then only keeps loaded versions.

    A worker from before schema 0035, which keeps running while servers are upgraded, names the newest event
    `seen` and the problems `troubles`.
    """

    worker: WorkerName
    engine: Short
    version: Short | None = None
    base: Short | None = None
    base_id: Digest | None = None
    url: Annotated[str, Field(max_length=1024)] | None = None
    slots: int | None = Field(default=None, ge=1, le=1_000_000)
    lease: int = Field(default=60, ge=1, le=86_400)
    last_event: int | None = Field(
        default=None, ge=0, lt=2**63, validation_alias=AliasChoices("last_event", "seen")
    )
    names: tuple[Short, ...] = Field(default=(), max_length=MAX_RESIDENTS)
    residents: tuple[ResidentReport, ...] | None = Field(default=(), max_length=MAX_RESIDENTS)
    dropped: tuple[DroppedAdapter, ...] = Field(default=(), max_length=4096)
    problems: tuple[WorkerProblem, ...] = Field(
        default=(), max_length=MAX_PROBLEMS, validation_alias=AliasChoices("problems", "troubles")
    )
    recalled: tuple[RecallProof, ...] = Field(default=(), max_length=4096)
    max_age: int | None = Field(default=None, ge=0, le=10 * 366 * 86_400)


class Withdrawal(Value):
    """A version that the worker has or had, and must drop. `generation` is that of its state; None from an
    older server."""

    name: AdapterName
    digest: Digest
    number: int
    state: State
    proof: str | None = None
    generation: int | None = None


class RolloutAssignment(Value):
    """A rollout that includes the worker: the version to serve instead of the alias's."""

    name: AdapterName
    alias: str
    digest: Digest
    number: int


class ReportReply(Value):
    """The reply to a worker's report: the newest event, the versions to drop, and the rollouts to follow.

    `unknown` are reported versions that do not exist or that the worker may not read; they are not recorded.
    """

    seq: int
    epoch: str | None = None
    withdrawn: tuple[Withdrawal, ...] = ()
    turns: tuple[RolloutAssignment, ...] = ()
    unknown: tuple[Digest, ...] = ()


class WorkerGoneRequest(Value):
    """Why a worker is declared gone: the evidence that its engine no longer serves requests."""

    reason: FreeText = Field(min_length=3, max_length=1024)


class GoneDeclaration(Value):
    """A declaration that a worker is gone: author, time and reason. It is not a proof."""

    at: datetime
    by: str
    reason: str


class ResidentInfo(Value):
    """A version on a worker of that `owner`. If the worker `is_lost`, or its engine is not answering, the
    other fields are the last known ones, of the report at `reported_at` or an earlier one."""

    worker: str
    owner: str = ""
    name: AdapterName
    number: int
    digest: Digest
    state: State
    served_as: str
    condition: Condition
    since: datetime
    last_used: datetime | None = None
    ended_at: datetime | None = None
    dropped_at: datetime | None = None
    reason: str | None = None
    is_lost: bool = False
    is_answering: bool = True
    reported_at: datetime | None = None
    gone: GoneDeclaration | None = None

    @property
    def may_be_served(self) -> bool:
        """Whether the version may still serve requests, as far as the registry knows."""
        return self.condition not in ENDED and self.gone is None


class ResidentSummary(Value):
    """The numbers of workers that have or had a version: all of them, those that `may_serve` it, and those
    that are `closed`, because they proved that they dropped it or were declared gone. A worker counts once
    for each name under which it has the version.

    `first` are some of them, by name: those that may serve it before others, those that are closed last.
    """

    total: int = 0
    may_serve: int = 0
    closed: int = 0
    first: tuple[ResidentInfo, ...] = ()


class WorkerInfo(Value):
    """A worker with its last report. `owner` is the principal whose token it reports with; `base` is the
    engine's own name for its base, and `base_name` the registry's, if it is registered and the caller may see
    it."""

    worker: str
    owner: str
    engine: str
    version: str | None = None
    base: str | None = None
    base_name: str | None = None
    url: str | None = None
    slots: int | None = None
    last_event: int | None = None
    first_at: datetime
    reported_at: datetime
    lease: int
    max_age: int | None = None
    is_lost: bool
    is_answering: bool = True
    gone: GoneDeclaration | None = None
    residents: tuple[ResidentInfo, ...] = ()
    problems: tuple[WorkerProblem, ...] = ()

    @property
    def base_label(self) -> str:
        """The registry's name of its base, else the engine's; empty if neither is known."""
        return self.base_name or self.base or ""


class Workers(ABC):
    """The workers and their versions. A worker is visible to callers who may read one of its versions, to its
    owner, and to administrators.
    """

    @abstractmethod
    def report(self, report: WorkerReport) -> ReportReply:
        """Stores the report of the caller's worker of that name. Raises `PermissionDenied` without a worker's
        or an admin's token.

        A worker belongs to the token that reports it, so other tokens may have workers of the same name.
        """

    @abstractmethod
    def get(self, name: str, owner: str | None = None) -> WorkerInfo:
        """The worker of that name that belongs to `owner`. Without an owner: the caller's own, else the only
        one that the caller may see.

        Raises `NotFound`, `Conflict` if several owners have a worker of that name.
        """

    @abstractmethod
    def list(self, cursor: str | None = None, limit: int = 50) -> Page[WorkerInfo]:
        """Workers by name and owner, each with those of its versions that the caller may read."""

    @abstractmethod
    def declare_gone(self, name: str, request: WorkerGoneRequest, owner: str | None = None) -> WorkerInfo:
        """Declares that a worker's engine is gone (found as by `get`); its versions stay on record. Its next
        report ends the declaration. For its owner and administrators. Raises the errors of `get`,
        `PermissionDenied`, and `Conflict` while its last report is valid.
        """

    @abstractmethod
    def forget(self, name: str, owner: str | None = None) -> None:
        """Deletes the record of a worker (found as by `get`). For its owner and administrators. Raises the
        errors of `get`, `PermissionDenied`, and `Conflict` if the worker may serve something and was not
        declared gone, or had a withdrawn version and did not drop it: that recall needs the record.
        """

    @abstractmethod
    def residents(self, ref: Ref) -> tuple[ResidentInfo, ...]:
        """The workers that have or had the version, by name. Raises `NotFound`."""

    @abstractmethod
    def resident_summary(self, ref: Ref, limit: int = 20, served_as: str | None = None) -> ResidentSummary:
        """The number of workers that have or had the version (under one name, if it is given), and at most
        `limit` of them; for a version that thousands of workers have. Raises `NotFound`, `Invalid` for a bad
        limit.
        """
