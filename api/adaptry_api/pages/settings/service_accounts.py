"""Service accounts of a namespace with their tokens: for programs, which have no password and no browser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from pydantic import BaseModel

from adaptry.core.errors import Invalid, PermissionDenied
from adaptry.registry.access import PrincipalInfo, TokenInfo
from adaptry_api.pages.settings.fields import text_of
from adaptry_api.pages.settings.section import ActionResult, Confirmation, Fields, Section
from adaptry_api.pages.settings.subject import OF_NAMESPACE, Visit
from adaptry_api.pages.settings.tokens import confirm_revoking, create_token, revoke_token, token_names

_PAGE_SIZE = 50
_MAX_TOKENS = 100


class ServiceAccountsPage(BaseModel):
    """The accounts in name order; `next` is the cursor of the others. `tokens` are the newest of all accounts
    of the namespace that are not revoked; `has_more_tokens`: whether there are others.
    """

    accounts: tuple[PrincipalInfo, ...]
    next: str | None = None
    tokens: tuple[TokenInfo, ...]
    has_more_tokens: bool = False


def _read(visit: Visit) -> ServiceAccountsPage:
    namespace = visit.place.namespace
    _require(visit)
    accounts = visit.registry.principals.list(visit.cursor, _PAGE_SIZE, namespace=namespace)
    tokens = visit.registry.tokens.list(
        None, _MAX_TOKENS, namespace=namespace, with_revoked=False, reverse=True
    )
    return ServiceAccountsPage(
        accounts=accounts.items,
        next=accounts.next,
        tokens=tokens.items,
        has_more_tokens=tokens.next is not None,
    )


def _require(visit: Visit) -> None:
    """Raises `PermissionDenied` as the registry does for changes: lists are empty to those who may not."""
    if not visit.identity.may_in("token.manage", visit.place.namespace):
        raise PermissionDenied(
            f"{visit.identity.name} may not manage service accounts of {visit.place.namespace}"
            f" (token.manage); ask an owner of {visit.place.namespace!r}"
        )


def _create(visit: Visit, fields: Fields) -> None:
    visit.registry.principals.create("service-account", f"{visit.place.namespace}/{text_of(fields, 'name')}")


def _create_token(visit: Visit, fields: Fields) -> ActionResult:
    return create_token(visit, {**fields, "principal": _own_account(visit, fields)})


def _disable(visit: Visit, fields: Fields) -> None:
    visit.registry.principals.set_disabled(_own_account(visit, fields), True)


def _enable(visit: Visit, fields: Fields) -> None:
    visit.registry.principals.set_disabled(_own_account(visit, fields), False)


def _own_account(visit: Visit, fields: Fields) -> str:
    """The account in the form, which is one of this namespace. Raises `Invalid`."""
    name = text_of(fields, "account")
    if not name.startswith(f"{visit.place.namespace}/"):
        raise Invalid(f"{name[:193]!a} is not a service account of {visit.place.namespace}")
    return name


def _confirm_disabling(value: BaseModel, fields: Fields) -> Confirmation | None:
    for one in cast(ServiceAccountsPage, value).accounts:
        if one.name == fields.get("account") and one.disabled_at is None:
            text = "Its tokens are refused within five seconds, until it is enabled again."
            sent = {"account": one.name}
            return Confirmation(f"Disable {one.name}?", text, "Disable the account", sent)
    return None


def _confirm_revoking(value: BaseModel, fields: Fields) -> Confirmation | None:
    return confirm_revoking(cast(ServiceAccountsPage, value).tokens, fields)


def _table(value: BaseModel) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    return ("name", "created_at", "created_by", "disabled_at"), (
        (one.name, one.created_at, one.created_by, one.disabled_at)
        for one in cast(ServiceAccountsPage, value).accounts
    )


SERVICE_ACCOUNTS = Section(
    title="Service accounts",
    address=f"{OF_NAMESPACE}/service-accounts",
    template="settings_service_accounts.html",
    read=_read,
    actions={
        "create": _create,
        "create-token": _create_token,
        "revoke": revoke_token,
        "disable": _disable,
        "enable": _enable,
    },
    done={
        "create": "The account is created. It has no rights until it gets a role and a token.",
        "revoke": "The token is revoked.",
        "disable": "The account is disabled.",
        "enable": "The account is enabled.",
    },
    confirms={"disable": _confirm_disabling, "revoke": _confirm_revoking},
    table=_table,
    names=token_names,
)
