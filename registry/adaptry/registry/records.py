"""The values that a registry returns, which are also the wire format. Database rows never leave `catalog`.

The values of a push are dataclasses (`core.value`). The others are pydantic models in `record_models`, which
is imported when one of their names is first used from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from adaptry.core.digest import Digest
from adaptry.core.display import format_count, format_metrics, format_size, html_facts, short_repr, shorten
from adaptry.core.refs import AdapterName, Ref
from adaptry.core.report import CheckReport
from adaptry.core.states import State
from adaptry.core.value import FreeText, FrozenValue, NotBoolean, Pattern, limited, value
from adaptry.core.visibility import Visibility

if TYPE_CHECKING:
    from adaptry.registry.record_models import (
        AdapterInfo,
        AliasInfo,
        DirectPart,
        Event,
        EventBatch,
        InspectionSummary,
        Item,
        MetricInfo,
        Page,
        StateChange,
        TensorInspection,
        UploadInfo,
        UploadSession,
        Value,
        VersionDetail,
    )

__all__ = [
    "MAX_TAGS",
    "AdapterEdit",
    "AdapterInfo",
    "AliasInfo",
    "BaseStatus",
    "DirectPart",
    "Event",
    "EventBatch",
    "InspectionSummary",
    "Item",
    "MetricInfo",
    "MetricName",
    "MetricValue",
    "Page",
    "PushOptions",
    "PushResult",
    "Record",
    "StateChange",
    "StateRecord",
    "Tag",
    "TensorInspection",
    "UploadInfo",
    "UploadSession",
    "Value",
    "VersionDetail",
    "VersionInfo",
]

BaseStatus = Literal["verified", "declared", "unknown"]
"""Whether the base is registered here by content, only claimed by name, or not named at all."""

Tag = Annotated[str, Pattern(r"^[^\s,]{1,64}$")]
MetricName = Annotated[str, Pattern(r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,63}$")]
MetricValue = Annotated[float, NotBoolean()]
MAX_TAGS = 64
"""Tags of an adapter."""


def __getattr__(name: str) -> Any:
    """A record of `record_models`. (`Any`: classes.)"""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from adaptry.registry import record_models

    return vars(record_models)[name]


class Record(FrozenValue):
    """A frozen value that the registry returns."""

    def __repr__(self) -> str:
        """The fields that are not empty, on one line, each cut short."""
        found = ((name, item) for name, item in vars(self).items() if item)
        return short_repr(self, *(f"{name} {shorten(str(item), 40)}" for name, item in found))

    def __str__(self) -> str:
        return repr(self)


@value
class AdapterEdit(Record):
    """User-editable fields of an adapter. None leaves a field unchanged (on create: the default)."""

    description: FreeText | None = limited(default=None, max_length=4096)
    tags: tuple[Tag, ...] | None = limited(default=None, max_length=MAX_TAGS)
    visibility: Visibility | None = None

    def _is_plain(self) -> bool:
        return self.description is None and self.tags is None and self.visibility is None


@value
class StateRecord(Record):
    """The last change of a version's state. `generation` grows with each; pass it as `was`."""

    generation: int
    reason: str
    successor: str | None = None
    at: datetime
    by: str


@value
class VersionInfo(Record):
    """A version as shown in listings and searches. Without a `last_state_change`, its state has never
    changed.

    `rank`: the largest rank of its modules. `targets`: the last parts of their paths. `parameters`: the
    number of elements of its tensors, in `size` bytes. `weights`: the digest of all tensors, independent of
    the file's layout. `findings`: the number of findings of its check. `is_damaged`: some of its stored files
    are known to be lost or changed, and are not served until they are repaired.
    """

    name: AdapterName
    number: int
    digest: Digest
    state: State = "active"
    last_state_change: StateRecord | None = None
    created_at: datetime
    created_by: str
    method: str
    rank: int | None = None
    targets: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    parameters: int = 0
    size: int = 0
    weights: Digest
    base_id: Digest | None = None
    base_name: str | None = None
    base_status: BaseStatus = "unknown"
    aliases: tuple[str, ...] = ()
    metrics: dict[str, float] = limited(default_factory=dict, json_schema_extra={"default": {}})
    findings: int = 0
    downloads: int = 0
    is_damaged: bool = False

    @property
    def label(self) -> str:
        """The version's usual name: `acme/tone@3`."""
        return f"{self.name}@{self.number}"

    @property
    def revision_ref(self) -> Ref:
        """The ref that always selects this version."""
        return Ref.of_revision(self.name, self.digest)

    @property
    def state_generation(self) -> int:
        """The value to pass to `versions.set_state` as `was`, to change the state from this one."""
        return self.last_state_change.generation if self.last_state_change else 0

    def __repr__(self) -> str:
        return short_repr(
            self,
            self.label,
            None if self.state == "active" else self.state,
            "damaged" if self.is_damaged else None,
            self.method,
            None if self.rank is None else f"rank {self.rank}",
            self.base_name and f"base {self.base_name}",
            f"alias {', '.join(self.aliases)}" if self.aliases else None,
            format_metrics(self.metrics),
        )

    def _repr_html_(self) -> str:
        return html_facts(f"{self.label}  {self.state}", self._facts())

    def _facts(self) -> Iterator[tuple[str, str]]:
        """The record's facts, as names and texts; unknown facts have an empty text."""
        change = self.last_state_change
        yield "reason", f"{change.reason} (by {change.by})" if change else ""
        yield "successor", (change.successor or "") if change else ""
        yield "damaged", "some of its stored files are missing or changed" if self.is_damaged else ""
        yield "aliases", ", ".join(self.aliases)
        yield "method", " ".join((self.method, *self.traits))
        yield "rank", "" if self.rank is None else str(self.rank)
        yield "modules", ", ".join(self.targets)
        yield "base", f"{self.base_name or (self.base_id or '')} ({self.base_status})"
        yield "metrics", format_metrics(self.metrics)
        yield "findings", str(self.findings or "")
        yield "size", f"{self.parameters:,} parameters, {format_size(self.size)}"
        yield "pushed", f"{self.created_at:%Y-%m-%d %H:%M} UTC by {self.created_by}"
        yield "digest", str(self.digest)


@value
class PushOptions(Record):
    """Options of a push: metrics, the reason for pushing despite blocking findings, an alias to set, and
    whether to create the adapter if it does not exist.

    `number` is its number in another registry, which it also gets here unless a version has or had that
    number. `reuse`: return a usable version with the same files and base, even if its manifest has additional
    fields, such as its training run.
    """

    metrics: dict[MetricName, MetricValue] = limited(default_factory=dict, max_length=64)
    force_reason: FreeText | None = limited(default=None, min_length=3, max_length=1024)
    alias: str | None = None
    create: bool = True
    number: int | None = limited(default=None, ge=1, le=1_000_000_000)
    reuse: bool = False

    def _is_plain(self) -> bool:
        is_alias = self.alias is None or type(self.alias) is str
        is_rest = type(self.create) is bool and type(self.reuse) is bool
        return (
            is_alias and is_rest and self.metrics == {} and self.force_reason is None and self.number is None
        )


@value
class PushResult(Record):
    """The pushed version. `is_new` is False if the revision already existed."""

    version: VersionInfo
    is_new: bool
    report: CheckReport

    def __repr__(self) -> str:
        version = self.version
        found = format_count(len(self.report.findings), "finding") if self.report.findings else None
        return short_repr(
            self, version.label, "new" if self.is_new else "already present", version.digest.brief, found
        )

    def _repr_html_(self) -> str:
        found = self.report._repr_html_() if self.report.findings else ""
        return self.version._repr_html_() + found
