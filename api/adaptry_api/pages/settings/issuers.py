"""Issuers: the providers of ID tokens that trusted publishers name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast, get_args

from pydantic import BaseModel

from adaptry.core.access.ci_jobs import IssuerKind
from adaptry.registry.publishers import IssuerInfo, IssuerRequest
from adaptry_api.pages.settings.fields import text_of
from adaptry_api.pages.settings.section import Confirmation, Fields, Section
from adaptry_api.pages.settings.subject import SETTINGS, Visit


class IssuersPage(BaseModel):
    """The page's data: all issuers, in name order."""

    issuers: tuple[IssuerInfo, ...]


def _read(visit: Visit) -> IssuersPage:
    return IssuersPage(issuers=visit.registry.publishers.list_issuers())


def _add(visit: Visit, fields: Fields) -> None:
    request = IssuerRequest.model_validate(
        {name: text_of(fields, name) for name in ("name", "url", "kind", "audience")}
    )
    visit.registry.publishers.add_issuer(request)


def _remove(visit: Visit, fields: Fields) -> None:
    visit.registry.publishers.remove_issuer(text_of(fields, "name"))


def _confirm(value: BaseModel, fields: Fields) -> Confirmation | None:
    for one in cast(IssuersPage, value).issuers:
        if one.name == fields.get("name"):
            text = f"ID tokens of {one.url} are no longer accepted."
            return Confirmation(f"Remove the issuer {one.name}?", text, "Remove", {"name": one.name})
    return None


def _table(value: BaseModel) -> tuple[Sequence[str], Iterable[Sequence[object]]]:
    columns = ("name", "url", "kind", "audience", "created_at", "created_by")
    return columns, ([getattr(one, column) for column in columns] for one in cast(IssuersPage, value).issuers)


ISSUERS = Section(
    title="Trusted issuers",
    address=f"{SETTINGS}/issuers",
    template="settings_issuers.html",
    read=_read,
    actions={"add": _add, "remove": _remove},
    done={"add": "The issuer is trusted from now on.", "remove": "The issuer is removed."},
    confirms={"remove": _confirm},
    table=_table,
    names=lambda _: {"kinds": get_args(IssuerKind)},
)
