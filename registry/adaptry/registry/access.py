"""Values about access: principals, groups, grants and tokens as a registry returns them, and requests."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adaptry.core.access.actions import Action
from adaptry.core.lifecycle import State
from adaptry.registry.records import Value

PrincipalKind = Literal["user", "service-account", "worker"]
PrincipalName = Annotated[str, Field(min_length=1, max_length=193)]
GroupName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Permission = Annotated[str, Field(min_length=1, max_length=40)]
ResourceText = Annotated[str, Field(min_length=1, max_length=193)]


class PrincipalInfo(Value):
    """A user, a service account of `namespace`, or a worker. A disabled one may do nothing."""

    name: str
    kind: PrincipalKind
    namespace: str | None = None
    created_at: datetime
    created_by: str
    disabled_at: datetime | None = None


class GroupInfo(Value):
    """A group, its number of principals, and the names of the first ones, in name order.
    `Principals.list` has all.
    """

    name: str
    size: int = 0
    members: tuple[str, ...] = ()
    created_at: datetime
    created_by: str


class GrantInfo(Value):
    """A grant of `permission`, a role or an action, to a principal or to a group."""

    id: int
    principal: str | None = None
    group: str | None = None
    permission: str
    resource: str
    conditions: tuple[str, ...] = ()
    created_at: datetime
    created_by: str


class NamespaceMembers(Value):
    """The roles of a namespace's members in the whole namespace, oldest first, and its accountable user.
    `next` is the cursor of more members.
    """

    namespace: str
    accountable: str | None = None
    members: tuple[GrantInfo, ...] = ()
    next: str | None = None


class AccessDecision(Value):
    """Whether a principal may do something, with the deciding grant, or the missing right."""

    is_allowed: bool
    reason: str
    principal: str
    action: Action
    resource: str
    grant: int | None = None


class TokenInfo(Value):
    """A token as listed: its principal and limits, and its last four characters to recognise it.

    `permissions` are roles and actions; None for these or for `resources` means no limit. `last_used_at` is
    accurate to about a minute.
    """

    id: int
    kind: str
    principal: str
    name: str
    permissions: tuple[str, ...] | None = None
    resources: tuple[str, ...] | None = None
    last_four: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class CreatedToken(Value):
    """A new token. `secret` is its text, which is not stored and cannot be shown again."""

    id: int
    principal: str
    name: str
    secret: str
    expires_at: datetime | None = None


class InvitationInfo(Value):
    """An invitation of a user. `code` is exchanged once for a first token; it is not stored and cannot be
    shown again.
    """

    principal: str
    code: str
    expires_at: datetime


class AccessRequest(BaseModel):
    """A request from a caller; unknown fields are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class TokenRequest(AccessRequest):
    """A new token, valid for `days` (None: until it is revoked).

    With `principal`: a token of that principal, called `name`, limited to `permissions` and `resources` if
    given. With `role` and `namespaces` instead, for administrators: a token of the user or worker `name`, who
    is created if missing and granted the role in these namespaces; the token is limited to it.
    """

    name: str = Field(min_length=1, max_length=96)
    principal: PrincipalName | None = None
    permissions: tuple[Permission, ...] | None = Field(default=None, min_length=1, max_length=64)
    resources: tuple[ResourceText, ...] | None = Field(default=None, min_length=1, max_length=64)
    role: Permission | None = None
    namespaces: tuple[ResourceText, ...] | None = Field(default=None, min_length=1, max_length=64)
    days: float | None = Field(default=90, gt=0, le=3650)

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        if (self.role is None) != (self.namespaces is None):
            raise ValueError("pass role and namespaces together")
        if (self.principal is None) == (self.role is None):
            raise ValueError("pass either principal, or role and namespaces")
        if self.role is not None and (self.permissions is not None or self.resources is not None):
            raise ValueError("permissions and resources require principal")
        return self


class InvitationRequest(AccessRequest):
    """An invitation of a user; the user is created if missing. It is valid once, for `hours`."""

    name: PrincipalName
    hours: float = Field(default=24, gt=0, le=24 * 14)


class InvitationAcceptance(AccessRequest):
    """The code of an invitation, and a name for the token that it is exchanged for."""

    code: str = Field(min_length=1, max_length=512)
    name: str = Field(default="login", min_length=1, max_length=96)


class PrincipalRequest(AccessRequest):
    """A new principal. A service account's `name` begins with its namespace: `acme/ci`."""

    kind: PrincipalKind
    name: PrincipalName


class PrincipalChange(AccessRequest):
    """Disables a principal, or enables it again."""

    name: PrincipalName
    is_disabled: bool


class GroupRequest(AccessRequest):
    """A new group."""

    name: GroupName


class MembershipChange(AccessRequest):
    """Adds a principal to a group, or removes it."""

    principal: PrincipalName
    is_member: bool


class Subject(AccessRequest):
    """The receiver of a grant: a principal or a group."""

    principal: PrincipalName | None = None
    group: GroupName | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.principal is None) == (self.group is None):
            raise ValueError("pass either a principal or a group")
        return self

    def __str__(self) -> str:
        return self.principal or f"group {self.group}"


class GrantRequest(Subject):
    """A grant to make. Conditions are texts such as `alias!=prod`."""

    permission: Permission
    resource: ResourceText
    conditions: tuple[Annotated[str, Field(max_length=400)], ...] = Field(default=(), max_length=8)


class MemberChange(Subject):
    """The new role of a member of a namespace; None removes the member."""

    role: Literal["viewer", "contributor", "maintainer", "owner"] | None


class AccountableChange(AccessRequest):
    """The user who is accountable for a namespace; None clears it."""

    principal: PrincipalName | None


class AccessQuery(AccessRequest):
    """Whether `principal` may do `action` to an adapter (`acme/tone`), to one of its aliases or versions
    (`acme/tone@prod`), or in a namespace (`acme`). `state` is a version's new state, for `state.set`.
    """

    principal: PrincipalName
    action: Action
    ref: str = Field(min_length=1, max_length=300)
    state: State | None = None
