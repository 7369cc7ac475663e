"""A small registry whose versions differ in everything that a query can select, and a reference search that
reads every version.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.evidence.values import EvidenceFile, EvidenceValue
from adaptry.core.query import And, Node, Not, Or, Query
from adaptry.core.query_terms import DateTerm, EvalTerm, HasTerm, MetricTerm, NumberTerm, TextTerm, WordTerm
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.evidence import WithdrawalRequest
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import AdapterEdit, AdapterInfo, StateChange, VersionDetail
from adaptry.registry.sort_keys import parse_search_sort
from adaptry.registry.workers import Condition, ResidentReport, WorkerReport
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.testing.samples import tiny_lora

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("acme/tone", "acme/voice", "beta/tone", "gamma/echo")
OF_ADAPTERS = (0, 1, 0, 2, 3, 0, 1, 3, 2, 0)
COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass
class Clock:
    """A clock that tests advance."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Known:
    """A version, with everything about it that a query can select."""

    key: int
    detail: VersionDetail
    adapter: AdapterInfo
    metrics: dict[str, list[float]] = field(default_factory=dict)
    evidence: list[tuple[int, EvidenceValue]] = field(default_factory=list)
    workers: set[str] = field(default_factory=set)

    @property
    def texts(self) -> dict[str, set[str]]:
        version, spec = self.detail.version, self.detail.spec
        licences = {tag.removeprefix("license:") for tag in self.adapter.tags if tag.startswith("license:")}
        return {
            "name": {str(version.name), version.name.name},
            "namespace": {version.name.namespace},
            "method": {spec.method},
            "module": set(spec.targets),
            "alias": set(version.aliases),
            "tag": set(self.adapter.tags),
            "licence": licences,
            "state": {version.state},
            "by": {version.created_by},
            "finding": {one.code for one in self.detail.report.findings},
            "loaded": self.workers,
            "trait": set(spec.traits),
            "word": set(words(" ".join([str(version.name), self.adapter.description, *self.adapter.tags]))),
        }

    @property
    def numbers(self) -> dict[str, float | None]:
        version = self.detail.version
        return {
            "rank": version.rank,
            "alpha": self.detail.spec.alpha,
            "size": version.size,
            "parameters": version.parameters,
            "version": version.number,
            "downloads": version.downloads,
            "findings": len(self.detail.report.findings),
        }

    @property
    def times(self) -> dict[str, datetime]:
        return {"created": self.detail.version.created_at, "updated": self.adapter.updated_at}

    def measured(self, task: str, metric: str, filter: str | None) -> float | None:
        found = [
            (id, one.value)
            for id, one in self.evidence
            if (one.task, one.metric) == (task, metric) and filter in (None, one.filter)
        ]
        return max(found)[1] if found else None


def words(text: str) -> Iterator[str]:
    yield from re.findall(r"[^\W_]+", text.casefold())


def filled(catalog: str, folder: Path) -> tuple[LocalRegistry, Clock]:
    """A registry of ten versions of four adapters, one of which is public."""
    clock = Clock()
    registry = LocalRegistry(RegistryContext(Catalog(catalog), MemoryBlobs(), clock=clock))
    for name, description, tags in zip(
        NAMES,
        ("A narrator's voice", "For dubbing films", "", "Narrates twice"),
        (("speech", "license:mit"), ("license:apache-2.0",), (), ("speech", "draft")),
        strict=True,
    ):
        visibility = "public" if name.startswith("gamma") else "private"
        registry.adapters.create(
            AdapterName.parse(name), AdapterEdit(description=description, tags=tags, visibility=visibility)
        )
    residents = []
    for number in range(10):
        clock.now += timedelta(days=3)
        name = AdapterName.parse(NAMES[OF_ADAPTERS[number]])
        lora = open_dir(
            tiny_lora(
                folder / str(number),
                seed=number,
                rank=(4, 8, 4, 16)[number % 4],
                targets=("q_proj", "k_proj") if number % 3 else ("v_proj",),
            )
        )
        version = push(registry, lora, name).version
        ref = Ref.of_revision(name, version.digest)
        if number % 3 != 1:
            registry.metrics.log(ref, {"accuracy": number / 10})
            registry.metrics.log(ref, {"accuracy": (7 * number % 10) / 10, "loss": 1.0})
        if number % 2:
            measure(registry, ref, number)
        if number in (2, 5, 8):
            registry.aliases.move(name, "prod" if number == 5 else "canary", version.digest, was=None)
        if number == 6:
            registry.versions.set_state(
                name, version.digest, StateChange(state="yanked", reason="bad"), was=0
            )
        if number == 7:
            registry.versions.count_download(ref)
        condition: Condition = "serving" if number % 4 else "failed"
        if number % 2 == 0:
            residents.append(
                ResidentReport(
                    name=name,
                    digest=version.digest,
                    served_as=f"m{number}",
                    condition=condition,
                    since=clock.now,
                )
            )
    registry.workers.report(WorkerReport(worker="gpu-1", engine="vllm", residents=tuple(residents[:3])))
    registry.workers.report(WorkerReport(worker="gpu-2", engine="sglang", residents=tuple(residents[2:])))
    return registry, clock


def measure(registry: LocalRegistry, ref: Ref, number: int) -> None:
    """Adds evidence twice, with two filters, and withdraws some."""
    for turn in range(2):
        data = f"results {number} {turn}".encode()
        digest = Digest.of(data)
        upload = registry.uploads.open(ref.name, digest, len(data))
        registry.uploads.finish(registry.uploads.append(upload, 0, [data]))
        values = tuple(
            EvidenceValue(
                task="gsm8k", metric="exact_match", filter=filter, value=(number + turn + add) % 8 / 8
            )
            for add, filter in enumerate(("strict", "loose"))
        )
        extra = (EvidenceValue(task="arc.easy", metric="acc", value=number / 10),) if number == 3 else ()
        registry.evidence.add(
            ref, EvidenceFile(digest=digest, format="lm-eval", harness="lm-eval", values=values + extra)
        )
    if number in (5, 9):
        newest = registry.evidence.list(ref).items[0]
        registry.evidence.withdraw(
            newest.id, WithdrawalRequest(reason="a wrong template", whole_file=number == 9)
        )


def everything(registry: LocalRegistry) -> list[Known]:
    """Every version, oldest first, found only by listings."""
    found = []
    for adapter in iter_items(lambda cursor: registry.adapters.list(None, cursor)):
        for version in registry.versions.list(adapter.name).items:
            ref = Ref.of_revision(adapter.name, version.digest)
            known = Known(0, registry.versions.detail(ref), adapter)
            for one in registry.metrics.list(ref):
                known.metrics.setdefault(one.metric, []).append(one.value)
            known.evidence = [
                (one.id, EvidenceValue(task=one.task, metric=one.metric, filter=one.filter, value=one.value))
                for one in registry.evidence.list(ref).items
                if one.task and not one.withdrawn
            ]
            known.workers = {
                label
                for resident in registry.workers.residents(ref)
                if resident.condition not in ("failed", "unloaded")
                for label in (resident.worker, registry.workers.get(resident.worker).engine)
            }
            found.append(known)
    found.sort(key=lambda one: one.detail.version.created_at)
    for key, one in enumerate(found):
        one.key = key
    return found


def matches(query: Query, version: Known) -> bool:
    if not query.names_states and version.detail.version.state not in ("active", "deprecated"):
        return False
    return all(holds(part, version) for part in query.parts)


def holds(node: Node, version: Known) -> bool:
    match node:
        case Not(part):
            return not holds(part, version)
        case And(parts):
            return all(holds(part, version) for part in parts)
        case Or(parts):
            return any(holds(part, version) for part in parts)
        case WordTerm(text):
            has, parts = version.texts["word"], list(words(text))
            begun = parts.pop() if text.endswith("*") and parts else ""
            return all(word in has for word in parts) and any(word.startswith(begun) for word in has)
        case TextTerm(field, text, is_prefix):
            return any(each.startswith(text) if is_prefix else each == text for each in version.texts[field])
        case NumberTerm(field, compare, value):
            number = version.numbers[field]
            return number is not None and COMPARE[compare](number, value)
        case DateTerm(field, since, until, is_outside):
            at = version.times[field]
            return ((since is None or at >= since) and (until is None or at < until)) is not is_outside
        case MetricTerm(metric, compare, value, pick):
            values = version.metrics.get(metric)
            chosen = {"newest": lambda all: all[-1], "max": max, "min": min}[pick]
            return values is not None and COMPARE[compare](chosen(values), value)
        case EvalTerm(name, compare, value):
            measured = version.measured(name.task, name.metric, name.filter)
            return measured is not None and COMPARE[compare](measured, value)
        case HasTerm(field, name):
            return has_any(version, field, name)
    raise AssertionError(node)


def has_any(version: Known, field: str, name: str) -> bool:
    if field in ("rank", "alpha"):
        return version.numbers[field] is not None
    if field == "metric":
        return name in version.metrics if name else bool(version.metrics)
    if field == "eval":
        tasks = {text for _, one in version.evidence for text in (one.task, f"{one.task}.{one.metric}")}
        return name in tasks if name else bool(tasks)
    if field == "parent":
        return bool(version.detail.manifest.parents)
    return bool(version.texts[field])


def in_order(found: list[Known], sort: str, reverse: bool) -> list[Known]:
    """Versions in an order; those without a value last."""
    order = parse_search_sort(sort)
    if sort == "name":
        return sorted(
            sorted(found, key=lambda one: one.key, reverse=not reverse),
            key=lambda one: str(one.adapter.name),
            reverse=reverse,
        )
    if sort == "updated":
        return sorted(
            in_order(found, "name", reverse), key=lambda one: one.adapter.updated_at, reverse=not reverse
        )

    def value_of(one: Known) -> float | None:
        if order.evaluation is not None:
            return one.measured(order.evaluation.task, order.evaluation.metric, order.evaluation.filter)
        if order.metric is not None:
            return one.metrics.get(order.metric, [None])[-1]
        return one.key if sort in ("newest", "created") else one.numbers[sort]

    by_age = sorted(found, key=lambda one: one.key, reverse=not reverse)
    valued = [one for one in by_age if value_of(one) is not None]
    valued.sort(key=lambda one: value_of(one) or 0, reverse=not reverse)
    return valued + [one for one in by_age if value_of(one) is None]
