"""Users and groups of the registry: create, invite, disable; and who is in a group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from pydantic import BaseModel

from adaptry.registry.access import (
    GroupInfo,
    GroupRequest,
    InvitationRequest,
    MembershipChange,
    PrincipalInfo,
    PrincipalRequest,
)
from adaptry_api.pages.settings.fields import days_of, text_of
from adaptry_api.pages.settings.section import ActionResult, Confirmation, Fields, Section
from adaptry_api.pages.settings.subject import SETTINGS, Visit

_PAGE_SIZE = 100
_GROUPS_ON_A_PAGE = 20


class UsersPage(BaseModel):
    """Users and workers in name order, those whose name begins with `q`; `next` is the cursor of more."""

    q: str = ""
    principals: tuple[PrincipalInfo, ...]
    next: str | None = None


class GroupsPage(BaseModel):
    """Groups in name order: all for administrators, otherwise the visitor's own. With `?of=`, the members of
    that group instead. `next` is the cursor of the next page.
    """

    groups: tuple[GroupInfo, ...] = ()
    of: str = ""
    members: tuple[PrincipalInfo, ...] = ()
    next: str | None = None


def _users(visit: Visit) -> UsersPage:
    q = visit.query.get("q", "").strip()
    found = visit.registry.principals.list(visit.cursor, _PAGE_SIZE, kinds=("user", "worker"), prefix=q)
    return UsersPage(q=q, principals=found.items, next=found.next)


def _create(visit: Visit, fields: Fields) -> None:
    request = PrincipalRequest.model_validate({name: text_of(fields, name) for name in ("kind", "name")})
    visit.registry.principals.create(request.kind, request.name)


def _invite(visit: Visit, fields: Fields) -> ActionResult:
    request = InvitationRequest(name=text_of(fields, "name"), hours=days_of(fields, "hours"))
    made = visit.registry.principals.invite(request)
    what = f"The invitation of {made.principal}"
    return ActionResult(made, {"secret": {"what": what, "text": made.code, "until": made.expires_at}})


def _disable(visit: Visit, fields: Fields) -> None:
    visit.registry.principals.set_disabled(text_of(fields, "name"), True)


def _enable(visit: Visit, fields: Fields) -> None:
    visit.registry.principals.set_disabled(text_of(fields, "name"), False)


def _confirm_disabling(value: BaseModel, fields: Fields) -> Confirmation | None:
    for one in cast(UsersPage, value).principals:
        if one.name == fields.get("name") and one.disabled_at is None:
            text = "All of their tokens are refused within five seconds, until they are enabled again."
            sent = {"name": one.name}
            return Confirmation(f"Disable {one.name}?", text, f"Disable the {one.kind}", sent)
    return None


def _users_table(value: BaseModel) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    columns = ("name", "kind", "created_at", "created_by", "disabled_at")
    return columns, (
        [getattr(one, column) for column in columns] for one in cast(UsersPage, value).principals
    )


def _groups(visit: Visit) -> GroupsPage:
    if of := visit.query.get("of", "").strip():
        found = visit.registry.principals.list(visit.cursor, _PAGE_SIZE, group=of)
        return GroupsPage(of=of, members=found.items, next=found.next)
    groups = visit.registry.principals.groups(visit.cursor, _GROUPS_ON_A_PAGE)
    return GroupsPage(groups=groups.items, next=groups.next)


def _create_group(visit: Visit, fields: Fields) -> None:
    visit.registry.principals.create_group(GroupRequest(name=text_of(fields, "name")).name)


def _delete_group(visit: Visit, fields: Fields) -> None:
    visit.registry.principals.delete_group(text_of(fields, "group"))


def _put_in(visit: Visit, fields: Fields) -> None:
    _set_membership(visit, fields, True)


def _take_out(visit: Visit, fields: Fields) -> None:
    _set_membership(visit, fields, False)


def _set_membership(visit: Visit, fields: Fields, is_member: bool) -> None:
    change = MembershipChange(principal=text_of(fields, "principal"), is_member=is_member)
    visit.registry.principals.set_membership(text_of(fields, "group"), change.principal, is_member)


def _confirm_deleting(value: BaseModel, fields: Fields) -> Confirmation | None:
    for one in cast(GroupsPage, value).groups:
        if one.name == fields.get("group"):
            text = "The group's grants are removed, too. Its members remain users."
            sent = {"group": one.name}
            return Confirmation(f"Delete the group {one.name}?", text, "Delete the group", sent)
    return None


def _groups_table(value: BaseModel) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    page = cast(GroupsPage, value)
    first = ((group.name, member) for group in page.groups for member in group.members or ("",))
    return ("group", "principal"), (*first, *((page.of, one.name) for one in page.members))


USERS = Section(
    title="Users",
    address=f"{SETTINGS}/users",
    template="settings_users.html",
    read=_users,
    actions={"create": _create, "invite": _invite, "disable": _disable, "enable": _enable},
    done={
        "create": "The principal is created. It has no rights until it gets a role and a token.",
        "disable": "The principal is disabled.",
        "enable": "The principal is enabled.",
    },
    confirms={"disable": _confirm_disabling},
    table=_users_table,
)
GROUPS = Section(
    title="Groups",
    address=f"{SETTINGS}/groups",
    template="settings_groups.html",
    read=_groups,
    actions={"create": _create_group, "delete": _delete_group, "add": _put_in, "remove": _take_out},
    done={
        "create": "The group is created.",
        "delete": "The group is deleted.",
        "add": "The principal is in the group.",
        "remove": "The principal is no longer in the group.",
    },
    confirms={"delete": _confirm_deleting},
    table=_groups_table,
)
