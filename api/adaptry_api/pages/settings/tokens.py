"""Tokens: those that the visitor manages, and a form for a new one, whose secret is shown once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel

from adaptry.core.access.roles import ROLES
from adaptry.registry.access import CreatedToken, TokenInfo, TokenRequest
from adaptry_api.pages.settings.fields import days_of, optional_text, text_of, words_of
from adaptry_api.pages.settings.section import ActionResult, Confirmation, Fields, Section
from adaptry_api.pages.settings.subject import SETTINGS, Visit, whole_number

_PAGE_SIZE = 50


class TokensPage(BaseModel):
    """Tokens, newest first: of one principal, if the address names one; `next` is the cursor of more."""

    principal: str | None = None
    tokens: tuple[TokenInfo, ...]
    next: str | None = None


def _read(visit: Visit) -> TokensPage:
    principal = visit.query.get("principal") or None
    found = visit.registry.tokens.list(visit.cursor, _PAGE_SIZE, principal=principal, reverse=True)
    return TokensPage(principal=principal, tokens=found.items, next=found.next)


def create_token(visit: Visit, fields: Fields) -> ActionResult:
    """A token of the visitor, or of the principal in the form."""
    role = optional_text(fields, "permission")
    request = TokenRequest(
        name=text_of(fields, "name"),
        principal=optional_text(fields, "principal") or visit.identity.name,
        permissions=(role,) if role else None,
        resources=words_of(fields, "resources") or None,
        days=days_of(fields),
    )
    return shown_token(visit.registry.tokens.create(request))


def shown_token(created: CreatedToken) -> ActionResult:
    """The secret, for the page that shows it once."""
    what = f"The token {created.name} of {created.principal}"
    return ActionResult(
        created, {"secret": {"what": what, "text": created.secret, "until": created.expires_at}}
    )


def revoke_token(visit: Visit, fields: Fields) -> None:
    visit.registry.tokens.revoke(whole_number(fields.get("id", "")))


def confirm_revoking(tokens: Iterable[TokenInfo], fields: Fields) -> Confirmation | None:
    """The dialog for one of the tokens."""
    for one in tokens:
        if str(one.id) == fields.get("id"):
            text = (
                f"It ends in {one.last_four}. Programs and browser sessions that use it are refused within"
                " five seconds. This cannot be undone."
            )
            title = f"Revoke the token {one.name} of {one.principal}?"
            return Confirmation(title, text, "Revoke the token", {"id": str(one.id)})
    return None


def _confirm(value: BaseModel, fields: Fields) -> Confirmation | None:
    assert isinstance(value, TokensPage)
    return confirm_revoking(value.tokens, fields)


def _table(value: BaseModel) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    assert isinstance(value, TokensPage)
    columns = (
        "id", "principal", "name", "kind", "permissions", "resources", "last_four", "created_at",
        "created_by", "expires_at", "revoked_at", "last_used_at",
    )  # fmt: skip
    return columns, (
        (
            one.id, one.principal, one.name, one.kind, " ".join(one.permissions or ()),
            " ".join(one.resources or ()), one.last_four, one.created_at, one.created_by, one.expires_at,
            one.revoked_at, one.last_used_at,
        )
        for one in value.tokens
    )  # fmt: skip


def token_names(visit: Visit) -> Mapping[str, object]:
    """The names that templates with tokens need: the roles, the time now, and the token of this session."""
    return {"roles": tuple(ROLES), "now": datetime.now(UTC), "own_token": visit.identity.token}


TOKENS = Section(
    title="Tokens",
    address=f"{SETTINGS}/tokens",
    template="settings_tokens.html",
    read=_read,
    actions={"create": create_token, "revoke": revoke_token},
    done={"revoke": "The token is revoked."},
    confirms={"revoke": _confirm},
    table=_table,
    names=token_names,
)
