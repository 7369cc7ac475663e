"""The records that are pydantic models. Import them from `records`, which also defines the others."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Generic, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from adaptry.adapters.spec import Spec
from adaptry.core.digest import Digest
from adaptry.core.display import format_count, format_size, html_facts, short_repr, shorten
from adaptry.core.errors import InvalidRef
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, Ref
from adaptry.core.report import CheckReport
from adaptry.core.states import State
from adaptry.core.value import FreeText
from adaptry.core.visibility import Visibility
from adaptry.registry.records import VersionInfo

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


class AdapterInfo(Value):
    """An adapter: a series of versions. `latest` is the number of its newest active version."""

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
    reason: FreeText = Field(min_length=3, max_length=1024)
    successor: Annotated[str, Field(max_length=256), AfterValidator(_ref)] | None = None

    @model_validator(mode="after")
    def _succeeds_something(self) -> Self:
        if self.state == "active" and self.successor is not None:
            raise ValueError("an active version has no successor")
        return self


class InspectionSummary(Value):
    """Statistics of a version's weights, all files together: the number of tensors, of NaN and of infinite
    elements, and the Euclidean norm of the other elements (None if no tensor has one; see docs/checks.md).
    """

    tensors: int
    nan: int
    infinite: int
    norm: float | None = None


class TensorInspection(Value):
    """Statistics of one tensor of a version's `file`. `is_zero`: it has elements, and all are zero."""

    file: str
    tensor: str
    nan: int
    infinite: int
    norm: float | None = None
    is_zero: bool = False


class VersionDetail(Value):
    """Everything about a version. `forced` is the reason given for pushing past blocking findings. Without an
    `inspection`, its weights were not inspected yet (`versions.inspect_tensors` inspects them)."""

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


class DirectPart(Value):
    """`size` bytes of a file, from `start` on, which may be PUT to `address` with `headers` for an hour,
    without a token.
    """

    start: int
    size: int
    address: str
    headers: dict[str, str] = {}


class UploadInfo(Value):
    """An upload session: bytes up to `offset` were received; continue from there. `size` is the size of the
    file.

    `direct` are presigned URLs, if there are any, for all bytes that are still missing. Clients may send them
    there or to the registry.
    """

    id: str
    offset: int
    size: int
    direct: tuple[DirectPart, ...] = ()


class UploadSession(Value):
    """An open upload session, as shown to callers who may drop it.

    `owner` is an adapter's name or a base's id; `offset` is the number of bytes received, of `size`;
    `active_at` is the time of the last request, or of the last received bytes. `is_held` is True while a
    request is using the session.
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
    """The current state of an alias. `generation` grows with every move; pass it as `was` to the next move.

    In the result of a move, `promotion` is the number of its decision, if conditions decided it.
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
    """A change in the registry. `detail` has the values before and after it, as text."""

    seq: int
    at: datetime
    by: str
    kind: str
    name: AdapterName | None = None
    number: int | None = None
    detail: dict[str, str] = {}


class EventBatch(Value):
    """Events, oldest first, and the last number that was examined: pass `seq` as `after` to continue.

    If `seq` is smaller than the `after` of the request, the registry was restored from a backup: read
    everything again.
    """

    items: tuple[Event, ...] = ()
    seq: int
    epoch: str | None = None
    """The registry's epoch, which changes with each restore; None from an older server."""
