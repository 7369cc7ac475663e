"""The facts behind a decision about an alias's move: from the catalog, and from the version's files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from adaptry.adapters.adapter import Adapter, open_content
from adaptry.adapters.base_record import BaseRecord
from adaptry.checks.runtimes import check_runtime, parse_runtime
from adaptry.core.access.conditions import Facts
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, CorruptData, Invalid
from adaptry.core.gates import process
from adaptry.core.gates.evaluation import find_evidence
from adaptry.core.gates.expression import Call, PolicyCondition
from adaptry.core.gates.facts import (
    ApprovalFact,
    ComparedFact,
    EvidenceFact,
    FitFact,
    GateFacts,
    PairedFact,
    VersionFact,
    calls_of,
)
from adaptry.core.gates.paired_scores import ScoredEvidence, pair, unpaired
from adaptry.core.identity import LOCAL
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, Number, Ref
from adaptry.registry.aliases import AS_POLICIES_SAY, MoveRequest
from adaptry.storage.catalog import (
    aliases,
    evidence,
    principals,
    promotions,
)
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.aliases import AliasTarget
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rights import rights_of_name
from adaptry.storage.catalog.versions import VersionRecord, to_record
from adaptry.storage.local.blob_content import BlobContent
from adaptry.storage.local.context import RegistryContext, require_all_undamaged

_EVIDENCE_FIELDS = frozenset(EvidenceFact.model_fields)
_OF_TASKS = ("eval", "has_metric", "noninferior", "comparable")


@dataclass(frozen=True, slots=True)
class Move:
    """A move of an alias from its current version to another, its actor, and the request's conditions. A
    `policy` (text) is tried in place of the policies in force.
    """

    adapter: AdapterRecord
    alias: str
    to: VersionRecord
    current: AliasTarget | None
    by: str
    request: MoveRequest = AS_POLICIES_SAY
    policy: str | None = None


@dataclass(frozen=True)
class CatalogFacts:
    """Reads the facts that the conditions name from the catalog."""

    context: RegistryContext
    tx: Transaction
    move: Move
    conditions: Sequence[PolicyCondition]

    def gather(self) -> GateFacts:
        """The facts in the catalog; verdicts and comparisons by document are added later, from files."""
        compared = dict.fromkeys(
            call.text("vs") for call in calls_of(self.conditions, "noninferior", "comparable")
        )
        groups = dict.fromkeys(call.text("group") for call in calls_of(self.conditions, "approvals"))
        return GateFacts(
            subject=self._version(self.move.to),
            compared=tuple(ComparedFact(vs=vs, version=self._at(vs)) for vs in compared),
            approvals=tuple(self._approvals(group) for group in groups),
            knows_settings=True,
        )

    def _at(self, vs: str) -> VersionFact | None:
        target = aliases.find(self.tx, self.move.adapter, vs)
        if target is None:
            return None
        ref = Ref(self.move.adapter.name, Number(target.number))
        return self._version(to_record(self.context.resolve(self.tx, ref)))

    def _version(self, version: VersionRecord) -> VersionFact:
        tasks = {call.text("task") for call in calls_of(self.conditions, *_OF_TASKS)}
        logged = {call.text("metric") for call in calls_of(self.conditions, "metric")}
        found = evidence.newest_of_tasks(self.tx, version, tasks, logged) if tasks or logged else ()
        return VersionFact(
            number=version.number,
            digest=version.digest,
            state=version.state,
            evidence=tuple(
                EvidenceFact.model_validate(one.model_dump(include=set(_EVIDENCE_FIELDS))) for one in found
            ),
        )

    def _approvals(self, group: str) -> ApprovalFact:
        if self.context.identity.name == LOCAL.name:
            return ApprovalFact(
                group=group,
                problem="approvals are not possible in a registry that is opened as a folder, which has no"
                " users; promote through its server (--registry URL)",
            )
        found = principals.find_group(self.tx, group)
        if found is None:
            return ApprovalFact(group=group, problem=f"there is no group {group}")
        approved = promotions.approvers(self.tx, self.move.adapter, self.move.alias, self.move.to)
        columns = self.context.resolve(self.tx, Ref(self.move.adapter.name, Number(self.move.to.number)))
        ignored = {one: "may no longer approve" for one in approved if not self._may_approve(one)}
        ignored |= {
            one: f"is not in {group}" for one in approved if not principals.is_in(self.tx, found, one)
        }
        ignored |= {columns.created_by: "pushed the version", self.move.by: "moves the alias"}
        return ApprovalFact(
            group=group,
            by=tuple(one for one in approved if one not in ignored),
            ignored=tuple(f"{one}, who {ignored[one]}" for one in approved if one in ignored),
        )

    def _may_approve(self, name: str) -> bool:
        return may_approve(self.tx, name, self.move.adapter.name, self.move.alias, self.context.clock())


def may_approve(tx: Transaction, author: str, name: AdapterName, alias: str, now: datetime) -> bool:
    """Whether a principal still has the right that its approval required; false if the principal is
    disabled.
    """
    found = rights_of_name(tx, author)
    return found is not None and found.may("approve", name, Facts(alias=alias, now=now))


def runtime_verdicts(
    context: RegistryContext,
    conditions: Sequence[PolicyCondition],
    manifest: Manifest | None,
    base: BaseRecord | None,
) -> Iterator[FitFact]:
    """The verdicts of the runtimes that the conditions name, from the version's files."""
    names = dict.fromkeys(call.text("runtime") for call in calls_of(conditions, "fits"))
    if manifest is None:
        return
    adapter = open_content(BlobContent(context.blobs, manifest))
    for name in names:
        try:
            yield _fit(adapter, name, base)
        except AdaptryError as error:
            yield FitFact(runtime=name, outcome="unknown", reason=error.message)


def _fit(adapter: Adapter, name: str, base: BaseRecord | None) -> FitFact:
    """The verdict of a runtime. Readers of the decision may not see the base, so findings that need its
    record are given as codes only. Raises `AdaptryError` for text that is not a runtime.
    """
    runtime = parse_runtime(name)
    alone = check_runtime(adapter, runtime)
    if alone.outcome != "as_trained" or base is None:
        reason = alone.findings[0].reason if alone.findings else ""
        return FitFact(runtime=name, outcome=alone.outcome, reason=reason)
    found = check_runtime(adapter, runtime, base)
    reason = f"{found.findings[0].code}, with its base" if found.findings else ""
    return FitFact(runtime=name, outcome=found.outcome, reason=reason)


def base_of(
    context: RegistryContext, tx: Transaction, move: Move, conditions: Sequence[PolicyCondition]
) -> str | None:
    """The base of the version, if a verdict depends on it; a version may be bound to another one later."""
    if not calls_of(conditions, "fits"):
        return None
    columns = context.resolve(tx, Ref(move.adapter.name, Number(move.to.number)))
    return str(columns.base_id) if columns.base_id else None


def document_pairs(
    context: RegistryContext, conditions: Sequence[PolicyCondition], facts: GateFacts
) -> Iterator[PairedFact]:
    """The comparisons by document, for tasks with samples of both versions."""
    seen = set()
    for call in calls_of(conditions, "noninferior"):
        vs = call.text("vs")
        first, second = _compared(call, facts)
        if first is None or second is None or first.samples is None or second.samples is None:
            continue
        key = vs, first.samples, second.samples, first.metric, first.filter
        if key not in seen:
            seen.add(key)
            yield _paired(context, vs, first, second)


def _compared(call: Call, facts: GateFacts) -> tuple[EvidenceFact | None, EvidenceFact | None]:
    other = facts.version_at(call.text("vs"))
    return find_evidence(call, facts.subject), find_evidence(call, other) if other else None


def _paired(context: RegistryContext, vs: str, first: EvidenceFact, second: EvidenceFact) -> PairedFact:
    try:
        return pair(vs, _scored(context, first), _scored(context, second))
    except Invalid as error:
        return unpaired(vs, first, second, error.message)


def _scored(context: RegistryContext, one: EvidenceFact) -> ScoredEvidence:
    """The scores in a samples file. Raises `Invalid` if the file is too large or malformed, and
    `CorruptData`.
    """
    assert one.samples is not None
    what = f"the samples of evidence {one.id}"
    with context.catalog.read() as tx:
        require_all_undamaged(tx, {what: one.samples})
    if context.stored_size(one.samples, what) > process.MAX_SAMPLES:
        raise Invalid(f"{what} are larger than {process.MAX_SAMPLES >> 20} MiB")
    data = b"".join(context.blobs.chunks(one.samples))
    if Digest.of(data) != one.samples:
        raise CorruptData(f"{what} are damaged in the registry; `adaptry verify` lists other damage")
    return ScoredEvidence(one, process.read_scores(data, one.metric, one.filter))
