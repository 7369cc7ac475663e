"""The values that a registry returns, which are also the wire format. Database rows never leave `catalog`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from adaptry.adapters.spec import Spec
from adaptry.core.digest import Digest
from adaptry.core.display import (
    format_count,
    format_metrics,
    format_size,
    html_facts,
    short_repr,
    shorten,
)
from adaptry.core.errors import InvalidRef
from adaptry.core.identity import Visibility
from adaptry.core.lifecycle import State
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, Ref
from adaptry.core.report import CheckReport

BaseStatus = Literal["verified", "declared", "unknown"]
"""Whether the base is registered here by content, only claimed by name, or not named at all."""

Tag = Annotated[str, Field(pattern=r"^[^\s,]{1,64}$")]
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,63}$")]
Item = TypeVar("Item")


class Value(BaseModel):
    """A frozen answer. Unknown fields are ignored, so that an older client reads a newer server."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    def __repr__(self) -> str:
        """The fields that are not empty, on one line, each cut short."""
        fields = ((name, getattr(self, name)) for name in type(self).model_fields)
        return short_repr(self, *(f"{name} {shorten(str(value), 40)}" for name, value in fields if value))

    def __str__(self) -> str:
        return repr(self)


class Page(Value, Generic[Item]):
    """A page of items, and the cursor of the next page (`next`); None at the end."""

    items: tuple[Item, ...]
    next: str | None = None

    def __repr__(self) -> str:
        more = "there are more" if self.next else "the last"
        return short_repr(self, format_count(len(self.items), "item"), more)


MAX_TAGS = 64
"""Tags of an adapter."""


class AdapterEdit(Value):
    """User-editable fields of an adapter. None leaves a field unchanged (on create: the default)."""

    description: str | None = Field(default=None, max_length=4096)
    tags: tuple[Tag, ...] | None = Field(default=None, max_length=MAX_TAGS)
    visibility: Visibility | None = None


class AdapterInfo(Value):
    """An adapter: a series of versions. `latest` is the number of the newest active one."""

    name: AdapterName
    description: str = ""
    tags: tuple[str, ...] = ()
    visibility: Visibility = "private"
    created_at: datetime
    updated_at: datetime
    versions: int = 0
    latest: int | None = None
    downloads: int = 0

    def __repr__(self) -> str:
        latest = None if self.latest is None else f"latest {self.latest}"
        return short_repr(
            self, str(self.name), format_count(self.versions, "version"), latest, self.visibility
        )

    def _repr_html_(self) -> str:
        facts = (
            ("about", self.description),
            ("tags", ", ".join(self.tags)),
            ("versions", str(self.versions)),
            ("latest", "" if self.latest is None else str(self.latest)),
            ("visibility", self.visibility),
            ("downloads", str(self.downloads)),
        )
        return html_facts(str(self.name), facts)


def _ref(text: str) -> str:
    try:
        return str(Ref.parse(text))
    except InvalidRef as error:
        raise ValueError(error.message) from None


class StateChange(Value):
    """A new state of a version, its reason, and the version to use instead (a ref, stored as written)."""

    state: State
    reason: str = Field(min_length=3, max_length=1024)
    successor: Annotated[str, Field(max_length=256), AfterValidator(_ref)] | None = None

    @model_validator(mode="after")
    def _succeeds_something(self) -> Self:
        if self.state == "active" and self.successor is not None:
            raise ValueError("an active version has no successor")
        return self


class StateRecord(Value):
    """The last change of a version's state. `generation` grows with each; pass it as `was`."""

    generation: int
    reason: str
    successor: str | None = None
    at: datetime
    by: str


class VersionInfo(Value):
    """A version as shown in listings and searches. Without a `standing`, its state has never changed.

    `rank`: the largest rank of its modules. `targets`: the last parts of their paths. `parameters`: the
    number of elements of its tensors, in `size` bytes. `weights`: the digest of all tensors, independent of
    the file's layout. `findings`: the number of findings of its check. `is_damaged`: some of its stored files
    are known to be lost or changed, and are not served until they are repaired.
    """

    name: AdapterName
    number: int
    digest: Digest
    state: State = "active"
    standing: StateRecord | None = None
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
    metrics: dict[str, float] = {}
    findings: int = 0
    downloads: int = 0
    is_damaged: bool = False

    @property
    def label(self) -> str:
        """Its usual name: `acme/tone@3`."""
        return f"{self.name}@{self.number}"

    @property
    def revision_ref(self) -> Ref:
        """The ref that always selects this version."""
        return Ref.of_revision(self.name, self.digest)

    @property
    def state_generation(self) -> int:
        """The value to pass to `versions.set_state` as `was`, to change the state from this one."""
        return self.standing.generation if self.standing else 0

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
        standing = self.standing
        yield "reason", f"{standing.reason} (by {standing.by})" if standing else ""
        yield "successor", (standing.successor or "") if standing else ""
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


class InspectionSummary(Value):
    """Statistics of a version's weights, all files together: the number of tensors, of NaN and of infinite
    elements, and the Euclidean norm of the other elements (None if no tensor has one; see docs/checks.md).
    """

    tensors: int
    nan: int
    infinite: int
    norm: float | None = None


class TensorInspection(Value):
    """Statistics of one tensor of a version's `file`. `is_zero`: every element is zero, and there is one."""

    file: str
    tensor: str
    nan: int
    infinite: int
    norm: float | None = None
    is_zero: bool = False


class VersionDetail(Value):
    """Everything about a version. `forced` is the reason given for pushing past blocking findings; without an
    `inspection`, its weights were not looked into yet (`versions.inspect_tensors` does)."""

    version: VersionInfo
    manifest: Manifest
    spec: Spec
    report: CheckReport
    forced: str | None = None
    inspection: InspectionSummary | None = None

    def __repr__(self) -> str:
        files = format_count(len(self.manifest.files), "file")
        return short_repr(self, self.version.label, files, format_count(len(self.report.findings), "finding"))

    def _repr_html_(self) -> str:
        files = ", ".join(f"{entry.path} ({format_size(entry.size)})" for entry in self.manifest.files)
        more = (("forced", self.forced or ""), ("files", files))
        facts = html_facts(f"{self.version.label}  {self.version.state}", (*self.version._facts(), *more))
        return facts + (self.report._repr_html_() if self.report.findings else "")


class PushOptions(Value):
    """Options of a push: metrics, the reason for pushing it although the checks refuse it, an alias to set on
    it, and whether an adapter that does not exist yet is created.

    `number` is its number in another registry, which it also gets here unless a version has or had that
    number. `reuse`: return a usable version with the same files and base, even if its manifest has additional
    fields, such as its training run.
    """

    metrics: dict[MetricName, float] = Field(default_factory=dict, max_length=64)
    force_reason: str | None = Field(default=None, min_length=3, max_length=1024)
    alias: str | None = None
    create: bool = True
    number: int | None = Field(default=None, ge=1, le=1_000_000_000)
    reuse: bool = False


class PushResult(Value):
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


class DirectPart(Value):
    """`size` bytes of a file, from `start` on, which may be PUT to `address` with `headers` for an hour,
    without a token.
    """

    start: int
    size: int
    address: str
    headers: dict[str, str] = {}


class UploadInfo(Value):
    """An upload session: bytes up to `offset` are kept; continue from there. `size` is the whole file's.

    `direct` are addresses, where there are any, that lead past the registry for all that is still to come;
    bytes need not take them.
    """

    id: str
    offset: int
    size: int
    direct: tuple[DirectPart, ...] = ()


class UploadSession(Value):
    """An open upload session, as those see it who may drop it.

    `owner` is an adapter's name or a base's id, `offset` how many of `size` bytes have arrived, `active_at`
    when a request or bytes last came. `is_held` is True while a request is using the session.
    """

    id: str
    owner: str
    digest: Digest
    size: int
    offset: int
    created_by: str
    active_at: datetime
    is_held: bool


class AliasInfo(Value):
    """An alias now. `generation` grows with every move; pass it as `was` to move on from here.

    The answer to a move has the number of its decision (`promotion`), if conditions decided it.
    """

    alias: str
    number: int
    digest: Digest
    generation: int
    moved_at: datetime
    moved_by: str
    promotion: int | None = None


class MetricInfo(Value):
    """One logged value of a metric."""

    metric: str
    value: float
    number: int
    logged_at: datetime
    logged_by: str


class Event(Value):
    """Something that happened. `detail` has the before and after, as text."""

    seq: int
    at: datetime
    by: str
    kind: str
    name: AdapterName | None = None
    number: int | None = None
    detail: dict[str, str] = {}


class EventBatch(Value):
    """Events, oldest first, and the last number that was examined: pass `seq` as `after` to continue.

    A `seq` below the `after` that was asked with means that the registry was set back (a backup was
    restored): read everything again.
    """

    items: tuple[Event, ...] = ()
    seq: int
    epoch: str | None = None
    """The registry's epoch, another after each restore; None from an older server."""
