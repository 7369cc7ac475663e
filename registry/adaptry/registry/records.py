"""What a registry answers: values that are also the wire format. Database rows never leave `catalog`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, computed_field, model_validator

from adaptry.adapters.base_record import Match, Roots
from adaptry.adapters.spec import Spec
from adaptry.core.digest import Digest
from adaptry.core.errors import InvalidRef
from adaptry.core.identity import BaseVisibility, Visibility
from adaptry.core.lifecycle import State
from adaptry.core.manifest import FileEntry, Manifest
from adaptry.core.refs import AdapterName, Ref
from adaptry.core.report import CheckReport

BaseStatus = Literal["verified", "declared", "unknown"]
"""Whether the base is one this registry knows by content, only claimed by name, or not named at all."""

Tag = Annotated[str, Field(pattern=r"^[^\s,]{1,64}$")]
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,63}$")]
Item = TypeVar("Item")


class Value(BaseModel):
    """A frozen answer. Unknown fields are ignored, so that an older client reads a newer server."""

    model_config = ConfigDict(frozen=True)


class Page(Value, Generic[Item]):
    """Some items, and where to go on: pass `next` as the cursor; None at the end."""

    items: tuple[Item, ...]
    next: str | None = None


class AdapterEdit(Value):
    """What people say about an adapter. None leaves a field as it is (on create: the default)."""

    description: str | None = Field(default=None, max_length=4096)
    tags: tuple[Tag, ...] | None = Field(default=None, max_length=64)
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


def _ref(text: str) -> str:
    try:
        return str(Ref.parse(text))
    except InvalidRef as error:
        raise ValueError(error.message) from None


class StateChange(Value):
    """A state that a version is to have, why, and what to take instead of it (a ref, kept as it is
    written).
    """

    state: State
    reason: str = Field(min_length=3, max_length=1024)
    successor: Annotated[str, Field(max_length=256), AfterValidator(_ref)] | None = None

    @model_validator(mode="after")
    def _succeeds_something(self) -> Self:
        if self.state == "active" and self.successor is not None:
            raise ValueError("an active version has no successor")
        return self


class StateRecord(Value):
    """How a version came to its state: the last change of it. `generation` grows with each; pass it as
    `was`.
    """

    generation: int
    reason: str
    successor: str | None = None
    at: datetime
    by: str


class VersionInfo(Value):
    """A version in one line: what listings and searches show. Without a `standing` its state never changed.

    `is_damaged`: some of its stored files are known to be lost or changed, and are not given out until they
    are mended.
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
        """What people call it: `acme/tone@3`."""
        return f"{self.name}@{self.number}"

    @property
    def revision_ref(self) -> Ref:
        """The ref that means this very version for ever."""
        return Ref.of_revision(self.name, self.digest)

    @property
    def state_generation(self) -> int:
        """What `versions.set_state` takes as `was`, to change the state from here."""
        return self.standing.generation if self.standing else 0


class InspectionSummary(Value):
    """What a version's weights hold, all files together: how many tensors, NaN and infinite elements, and the
    Euclidean norm of the other elements (None if no tensor has one; docs/checks.md says which do).
    """

    tensors: int
    nan: int
    infinite: int
    norm: float | None = None


class TensorInspection(Value):
    """What one tensor of a version's `file` holds. `is_zero`: every element is zero, and there is one."""

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


class PushOptions(Value):
    """What goes along with a revision: metrics, the reason for pushing it although the checks refuse it,
    an alias to set on it, and whether an adapter that does not exist yet is created.

    `number` is the one it has in another registry: it gets that here too, unless some version has or had it.
    """

    metrics: dict[MetricName, float] = Field(default_factory=dict, max_length=64)
    force_reason: str | None = Field(default=None, min_length=3, max_length=1024)
    alias: str | None = None
    create: bool = True
    number: int | None = Field(default=None, ge=1, le=1_000_000_000)


class PushResult(Value):
    """The version a push ended at. `is_new` is False where that revision was there already."""

    version: VersionInfo
    is_new: bool
    report: CheckReport


class CommitNote(Value):
    """What someone says about a commit; who and when is for the registry to say."""

    title: str = Field(min_length=1, max_length=512)
    message: str = Field(default="", max_length=65_536)


class CommitInfo(Value):
    """A commit of a branch: a revision, with the title and message of its author.

    `id` names the revision for ever, so a branch that returns to an earlier tree shows that tree's id again.
    `number` is the version that this revision is; `carries` the version whose weights and config its files
    have, which is the same one, or an earlier one beside which only other files changed.
    """

    digest: Digest
    branch: str
    parent: str | None = None
    title: str
    message: str = ""
    author: str
    at: datetime
    number: int | None = None
    carries: int | None = None

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def id(self) -> str:
        """The first 40 hex digits of the digest."""
        return self.digest.short_id


class BranchInfo(Value):
    """A name for a commit. `head` is `main`; a `branch` moves with every commit to it, an `alias` only by
    `aliases.move`, a `tag` never."""

    name: str
    kind: Literal["head", "branch", "alias", "tag"]
    digest: Digest
    message: str = ""

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def commit(self) -> str:
        """The id of the commit."""
        return self.digest.short_id


class CommitResult(Value):
    """Where a branch is after a commit. `is_new` is False where it was there already.

    `version` and `report` are those of the version that the revision is, if it is one.
    """

    commit: CommitInfo
    is_new: bool
    version: VersionInfo | None = None
    report: CheckReport | None = None


class DirectPart(Value):
    """`size` bytes of a file, from `start` on, which may be PUT to `address` with `headers` for an hour,
    without a token.
    """

    start: int
    size: int
    address: str
    headers: dict[str, str] = {}


class UploadInfo(Value):
    """An upload session: bytes up to `offset` are kept; go on from there. `size` is the whole file's.

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
    """An alias now. `generation` grows with every move; pass it as `was` to move on from here."""

    alias: str
    number: int
    digest: Digest
    generation: int
    moved_at: datetime
    moved_by: str


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
    """Events, oldest first, and how far the look went: pass `seq` as `after` to go on.

    A `seq` below the `after` that was asked with means that the registry was set back (a backup was
    restored): look at everything anew.
    """

    items: tuple[Event, ...] = ()
    seq: int
    epoch: str | None = None
    """The registry's epoch, another after each restore; None from an older server."""


class BaseInfo(Value):
    """A base as listed: its id, the names it goes by, its shape in numbers, and what evidence there is."""

    id: Digest
    names: tuple[str, ...] = ()
    architecture: Digest
    model_type: str | None = None
    parameters: int = 0
    dtypes: tuple[str, ...] = ()
    roots: Roots | None = None
    tokenizer: Digest | None = None
    stored: tuple[FileEntry, ...] = ()
    adapters: int = 0
    visibility: BaseVisibility = "internal"  # what every base was to servers that do not say
    created_at: datetime
    created_by: str

    @property
    def is_stored(self) -> bool:
        """Whether its weights are kept here, so that anyone who may read it can merge."""
        return bool(self.stored)


class BaseEdit(Value):
    """What people decide about a base. None leaves a field as it is."""

    visibility: BaseVisibility | None = None


class BaseMatch(Value):
    """A known base and how alike it is to the one asked about."""

    base: BaseInfo
    match: Match
