"""Members of a namespace with their roles, who is accountable for it, and the other grants in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from pydantic import BaseModel

from adaptry.core.access.actions import ACTIONS
from adaptry.core.access.roles import MEMBER_ROLES
from adaptry.core.errors import Invalid
from adaptry.registry.access import GrantInfo, GrantRequest, MemberChange, NamespaceMembers
from adaptry_api.pages.settings.fields import optional_text, receiver_of, text_of
from adaptry_api.pages.settings.section import Confirmation, Fields, Section
from adaptry_api.pages.settings.subject import OF_NAMESPACE, Visit, whole_number

_PAGE_SIZE = 50


class MembersPage(BaseModel):
    """`grants`: grants in the namespace that do not come from a membership, shown only to those who manage
    them. `next` is the cursor for more grants, `members.next` the one for more members.
    """

    members: NamespaceMembers
    grants: tuple[GrantInfo, ...] = ()
    next: str | None = None
    may_manage: bool = False


def _read(visit: Visit) -> MembersPage:
    namespace = visit.place.namespace
    members = visit.registry.grants.members(namespace, visit.query.get("members") or None, _PAGE_SIZE)
    if not visit.identity.may_in("member.manage", namespace):
        return MembersPage(members=members)
    others = visit.registry.grants.list(namespace, None, visit.cursor, _PAGE_SIZE, with_members=False)
    return MembersPage(members=members, grants=others.items, next=others.next, may_manage=True)


def _receiver(fields: Fields) -> dict[str, str]:
    kind, name = fields.get("kind", "principal"), text_of(fields, "who")
    if kind not in ("principal", "group"):
        raise Invalid("choose whether it is a principal or a group")
    return {kind: name}


def _set(visit: Visit, fields: Fields) -> None:
    change = MemberChange.model_validate({**_receiver(fields), "role": text_of(fields, "role")})
    visit.registry.grants.set_member(visit.place.namespace, change)


def _remove(visit: Visit, fields: Fields) -> None:
    change = MemberChange.model_validate({**_receiver(fields), "role": None})
    visit.registry.grants.set_member(visit.place.namespace, change)


def _set_accountable(visit: Visit, fields: Fields) -> None:
    visit.registry.grants.set_accountable(visit.place.namespace, optional_text(fields, "accountable"))


def _grant(visit: Visit, fields: Fields) -> None:
    conditions = tuple(line.strip() for line in fields.get("conditions", "").splitlines() if line.strip())
    request = GrantRequest.model_validate(
        {
            **_receiver(fields),
            "permission": text_of(fields, "permission"),
            "resource": text_of(fields, "resource"),
            "conditions": conditions,
        }
    )
    visit.registry.grants.add(request)


def _take_back(visit: Visit, fields: Fields) -> None:
    visit.registry.grants.remove(whole_number(fields.get("id", "")))


def _confirm_removing(value: BaseModel, fields: Fields) -> Confirmation | None:
    page = cast(MembersPage, value)
    for one in page.members.members:
        kind, member = ("group", one.group) if one.group else ("principal", one.principal)
        if member and (fields.get("kind", "principal"), fields.get("who")) == (kind, member):
            text = f"The role {one.permission} in all of {page.members.namespace} ends within five seconds."
            title, sent = f"Remove {receiver_of(one)} from the members?", {"kind": kind, "who": member}
            return Confirmation(title, text, "Remove the member", sent)
    return None


def _confirm_taking_back(value: BaseModel, fields: Fields) -> Confirmation | None:
    for one in cast(MembersPage, value).grants:
        if str(one.id) == fields.get("id"):
            text = f"{receiver_of(one)} has {one.permission} on {one.resource} until then."
            sent = {"id": str(one.id)}
            return Confirmation("Remove this grant?", text, "Remove the grant", sent)
    return None


def _table(value: BaseModel) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    page = cast(MembersPage, value)
    columns = ("id", "principal", "group", "permission", "resource", "conditions", "created_at", "created_by")
    return columns, (
        (
            one.id, one.principal, one.group, one.permission, one.resource, "; ".join(one.conditions),
            one.created_at, one.created_by,
        )
        for one in (*page.members.members, *page.grants)
    )  # fmt: skip


MEMBERS = Section(
    title="Members",
    address=f"{OF_NAMESPACE}/members",
    template="settings_members.html",
    read=_read,
    actions={
        "set": _set,
        "remove": _remove,
        "accountable": _set_accountable,
        "grant": _grant,
        "take-back": _take_back,
    },
    done={
        "set": "The role is set.",
        "remove": "The member is removed.",
        "accountable": "The accountable user is set.",
        "grant": "The grant is made.",
        "take-back": "The grant is removed.",
    },
    confirms={"remove": _confirm_removing, "take-back": _confirm_taking_back},
    table=_table,
    names=lambda _: {"roles": MEMBER_ROLES, "permissions": (*MEMBER_ROLES, *ACTIONS)},
)
